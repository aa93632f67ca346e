"""Which statement of a role's policies allows a call. The part of IAM that the template's roles use, and no more.

Source: AWS IAM user guide, "Policy evaluation logic" and "IAM JSON policy elements: Condition operators".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class RoleCall:
    """One call of a role. ``context``: the condition keys that it carries."""

    role: str
    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)
    was_denied: bool = False

    def __str__(self) -> str:
        return f"{self.role} {self.action} on {self.resource} {dict(self.context) or ''}".rstrip()


@dataclass(frozen=True)
class Permission:
    """One action of one statement of one role."""

    role: str
    sid: str
    action: str


@dataclass(frozen=True)
class Grant:
    """A permission with what it holds for."""

    permission: Permission
    resources: tuple[str, ...]
    condition: Mapping[str, Mapping[str, object]]

    def allows(self, call: RoleCall) -> bool:
        """Whether the call is one that it is for."""
        return (
            self.permission.role == call.role
            and self.permission.action.lower() == call.action.lower()
            and any(_is_like(call.resource, pattern) for pattern in self.resources)
            and all(_holds(operator, keys, call.context) for operator, keys in self.condition.items())
        )


def grants(role: str, documents: Iterable[Mapping[str, object]]) -> list[Grant]:
    """The grants of a role's policy documents, each of whose statements allows something and has a Sid."""
    found: list[Grant] = []
    for document in documents:
        statements = document["Statement"]
        assert isinstance(statements, list)
        for statement in statements:
            assert statement["Effect"] == "Allow", statement
            assert statement.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}, statement
            resources = tuple(_listed(statement["Resource"]))
            found += [
                Grant(Permission(role, statement["Sid"], action), resources, statement.get("Condition", {}))
                for action in _listed(statement["Action"])
            ]
    return found


def missing(held: Sequence[Grant], calls: Iterable[RoleCall]) -> list[str]:
    """The calls that were denied, or that no grant allows."""
    return sorted({str(call) for call in calls if call.was_denied or not any(grant.allows(call) for grant in held)})


def unused(held: Sequence[Grant], calls: Sequence[RoleCall]) -> set[Permission]:
    """The permissions that no call needed."""
    return {grant.permission for grant in held if not any(grant.allows(call) for call in calls)}


def _holds(operator: str, keys: Mapping[str, object], context: Mapping[str, str]) -> bool:
    assert operator in ("StringLike", "StringEquals"), f"the tests do not know the operator {operator}"
    for key, values in keys.items():
        value = context.get(key)
        if value is None:
            return False
        if operator == "StringEquals" and value not in _listed(values):
            return False
        if operator == "StringLike" and not any(_is_like(value, pattern) for pattern in _listed(values)):
            return False
    return True


def _is_like(value: str, pattern: str) -> bool:
    # fnmatch knows sets of characters too; IAM does not.
    return fnmatchcase(value, pattern.replace("[", "[[]"))


def _listed(value: object) -> list[str]:
    return [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]
