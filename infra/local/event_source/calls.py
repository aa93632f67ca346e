"""The calls that the poller's host makes of Lambda, and of the destinations for what is given up."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from streamgauge.infra.clients import Clients
from streamgauge.infra.local.event_source.actions import Invoke, SendFailure
from streamgauge.infra.local.event_source.answers import Answered, NotInvoked
from streamgauge.processors.commit.aws_errors import AWS_ERRORS, error_code, reason_of

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

__all__ = ["invoke", "send"]


def invoke(client: LambdaClient, request: Invoke) -> Answered | NotInvoked:
    """Invoke the function and wait for its answer, however long it takes.

    An answer that is lost on its way may belong to a function that ran: the batch then comes twice, as on AWS.
    """
    try:
        answer = client.invoke(FunctionName=request.function_arn, Payload=request.payload)
        payload = answer["Payload"].read()
    except AWS_ERRORS as error:
        is_throttle = isinstance(error, ClientError) and error_code(error) == "TooManyRequestsException"
        return NotInvoked(reason_of(error), is_throttle=is_throttle)
    return Answered.checked(
        payload,
        function_error=answer.get("FunctionError"),
        status_code=answer["StatusCode"],
        executed_version=answer.get("ExecutedVersion", "$LATEST"),
        request_id=answer["ResponseMetadata"].get("RequestId", ""),
    )


def send(clients: Clients, request: SendFailure) -> None:
    """Tell the destination of records that are given up.

    Raises
    ------
    ClientError, BotoCoreError
        It does not know of them.
    """
    destination, record = request.destination, request.record
    _, _, service, _, account, name = destination.split(":", 5)
    match service:
        case "sqs":
            url = clients.sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
            clients.sqs.send_message(QueueUrl=url, MessageBody=record.text(is_with_payload=False))
        case "sns":
            clients.sns.publish(TopicArn=destination, Message=record.text(is_with_payload=False))
        case "s3":
            key = record.object_key(str(uuid.uuid4()))
            body = record.text(is_with_payload=True).encode()
            clients.s3.put_object(Bucket=name, Key=key, Body=body, ContentType="application/json")
        case _:
            raise AssertionError(destination)
