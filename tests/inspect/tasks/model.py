"""A model that says what a sample's input tells it to: one call of a tool a line, then what came of them."""

from __future__ import annotations

import json
from typing import Any

from inspect_ai.model import ChatMessage, Model, ModelOutput, ModelUsage, get_model
from inspect_ai.model._chat_message import ChatMessageTool

#: Without it the mock model would count tokens, and fetch a table for that.
USAGE = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)


def obedient() -> Model:
    """Make the model. The input is JSON: a list of (tool, arguments)."""
    return get_model("mockllm/model", custom_outputs=_answer)


def _answer(messages: list[ChatMessage], *_: Any) -> ModelOutput:
    calls = json.loads(next(message.text for message in messages if message.role == "user"))
    results = [message for message in messages if isinstance(message, ChatMessageTool)]
    if len(results) < len(calls):
        tool, arguments = calls[len(results)]
        output = ModelOutput.for_tool_call("mockllm/model", tool, arguments)
    else:
        output = ModelOutput.from_content("mockllm/model", "\n".join(_shown(result) for result in results))
    output.usage = USAGE
    return output


def _shown(result: ChatMessageTool) -> str:
    return f"{result.error.type}: {result.error.message}" if result.error else result.text.strip()
