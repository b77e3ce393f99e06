"""What the proxy's configuration names under ``callbacks``: one object for all calls of the process."""

from allotment import AsyncClient
from allotment.integrations.litellm import AllotmentHooks

hooks = AllotmentHooks(feature="chat", client=AsyncClient(timeout_s=2.0))
