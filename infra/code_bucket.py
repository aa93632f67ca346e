"""The bucket from which CloudFormation takes packages, and templates that are too long for a request."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.change_sets import TEMPLATE_BODY_BYTES_MAX, TemplateSource
from streamgauge.processors.commit.aws_errors import AWS_ERRORS, error_code, reason_of

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import CreateBucketRequestTypeDef

__all__ = ["CodeBucketFailed", "code_bucket_name", "ensure_code_bucket", "template_argument"]

# The region that CreateBucket must not be told.
_UNNAMED_REGION = "us-east-1"


class CodeBucketFailed(StreamgaugeError):
    """The bucket cannot be made or used."""


def code_bucket_name(account: str, region: str) -> str:
    """The bucket's name where nobody gives another: one for all pipelines of an account in a region."""
    return f"streamgauge-code-{account}-{region}"


def ensure_code_bucket(client: S3Client, name: str, *, account: str, region: str) -> bool:
    """Make the bucket if the account does not have it yet: private, and reached over TLS alone.

    Returns
    -------
    Whether it was made.

    Raises
    ------
    CodeBucketFailed
        It is another account's, or may not be made.
    """
    try:
        client.head_bucket(Bucket=name, ExpectedBucketOwner=account)
    except ClientError as error:
        if error_code(error) not in {"404", "NoSuchBucket"}:
            raise CodeBucketFailed(
                reason_of(error),
                where=f"bucket {name}",
                remedy="Is it another account's? Name one of your own with --code-bucket",
            ) from error
    except AWS_ERRORS as error:
        raise CodeBucketFailed(reason_of(error), where=f"bucket {name}") from error
    else:
        return False
    request: CreateBucketRequestTypeDef = {"Bucket": name}
    if region != _UNNAMED_REGION:
        request["CreateBucketConfiguration"] = {"LocationConstraint": region}  # type: ignore[typeddict-item] # a literal of all regions
    try:
        client.create_bucket(**request)
        client.put_public_access_block(
            Bucket=name,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "BlockPublicPolicy": True,
                "IgnorePublicAcls": True,
                "RestrictPublicBuckets": True,
            },
        )
        client.put_bucket_policy(Bucket=name, Policy=json.dumps(_over_tls_alone(name)))
    except AWS_ERRORS as error:
        raise CodeBucketFailed(reason_of(error), where=f"bucket {name}") from error
    return True


def template_argument(client: S3Client, bucket: str, template: str) -> TemplateSource:
    """The template as `plan_changes` takes it; one that is too long for a request goes into the bucket.

    Raises
    ------
    CodeBucketFailed
        The bucket may not be written.
    """
    body = template.encode()
    if len(body) <= TEMPLATE_BODY_BYTES_MAX:
        return {"TemplateBody": template}
    key = f"streamgauge-template-{sha256(body).hexdigest()[:16]}.yaml"
    try:
        client.put_object(Bucket=bucket, Key=key, Body=body)
    except AWS_ERRORS as error:
        raise CodeBucketFailed(reason_of(error), where=f"s3://{bucket}/{key}") from error
    return {"TemplateURL": f"{client.meta.endpoint_url}/{bucket}/{key}"}


def _over_tls_alone(bucket: str) -> dict[str, object]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "OnlyOverTls",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }
