"""What the OpenAI SDK 2.x, on httpx, makes of being metered: run in the second environment, told by its arguments where
the provider and the agent are; says what came back as one line of JSON."""

from __future__ import annotations

import asyncio
import json
import sys

import httpx
import openai

import allotment

url, socket_path, customer = sys.argv[1:]
MESSAGES = [{"role": "user", "content": "What is the capital of the UK?"}]
STREAM = {"x-play": json.dumps({"file": "openai-chat-stream-1.sse", "step": 50})}
LABELS = {"customer": customer, "feature": "chat", "socket_path": socket_path}
OPTIONS = {"api_key": "k", "base_url": url + "/v1", "max_retries": 0}


def blocking() -> int:
    with allotment.meter(openai.OpenAI(**OPTIONS), user="blocking", **LABELS) as client:
        chunks = client.chat.completions.create(model="m", messages=MESSAGES, stream=True, extra_headers=STREAM)
        return sum(1 if chunk.choices else 100 for chunk in chunks)


async def waiting() -> bool:
    async with allotment.meter(openai.AsyncOpenAI(**OPTIONS), user="waiting", **LABELS) as client:
        answer = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True, extra_headers=STREAM)
        return all([chunk.choices async for chunk in answer])


def refused() -> int:
    client = allotment.meter(openai.OpenAI(**OPTIONS), **{**LABELS, "customer": "nobody"})
    with client:
        try:
            client.chat.completions.create(model="m", messages=MESSAGES)
        except openai.PermissionDeniedError as error:
            return error.status_code
    return 0


assert issubclass(openai.DefaultHttpxClient, httpx.Client)
said = {"version": openai.__version__, "chunks": blocking(), "whole": asyncio.run(waiting()), "refused": refused()}
sys.stdout.write(json.dumps(said) + "\n")
