"""The whole way of an event in virtual time: the product's own parts, and a world around them that goes wrong."""
