"""A server of the completions protocol around a small network, written apart from the package, with faults to order.

Adapters are loaded as vLLM 0.20 does it: the same paths, statuses and words (openai/models/serving.py and
serve/lora/api_router.py of its vllm/entrypoints).
"""

import contextlib
import copy
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from peft import PeftModel


@torch.no_grad()
def naive(network, context, seed, limit, temperature=1.0, eos=1):
    """An answer drawn token by token with torch's generator, and its log-probs."""
    draw = torch.Generator().manual_seed(seed)
    ids, answer, logp = list(context), [], []
    while len(answer) < limit and (not answer or answer[-1] != eos):
        logits = network(torch.tensor([ids])).logits[0, -1].double()
        token = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=draw))
        logp.append(float(logits.log_softmax(-1)[token]))
        answer.append(token)
        ids.append(token)
    return answer, logp


REFUSALS = {
    "429": (429, {"error": "slow down"}, {"Retry-After": "0"}),
    "500": (500, {"error": "oh"}),
    "list": (200, {"choices": []}),
    **{how: (200, {"choices": [{"finish_reason": how, "token_ids": [3], "text": ""}]}) for how in ("abort", "error")},
}


class Handler(BaseHTTPRequestHandler):
    """Answers for the SmallServer in `server.small`."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path == "/health":
            return self.answer(200, "")
        small = self.server.small
        adapters = [{"id": name, "parent": small.models[0]} for name in small.adapters]
        return self.answer(200, {"data": [{"id": name, "parent": None} for name in small.models] + adapters})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("_lora_adapter"):
            return self.adapter(self.path.removeprefix("/v1/"), body)
        with self.server.small.lock:
            self.server.small.asked.append((body, dict(self.headers)))
            self.server.small.at_once += 1
            self.server.small.most_at_once = max(self.server.small.most_at_once, self.server.small.at_once)
            fault = self.server.small.faults.pop(0) if self.server.small.faults else None
        try:
            time.sleep(self.server.small.pause)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.reply(body, fault)
        finally:
            with self.server.small.lock:
                self.server.small.at_once -= 1

    def adapter(self, what, body):
        """The two calls of vLLM's api_router.py, which it has where the environment allows them."""
        small = self.server.small
        if not small.updating:
            return self.answer(404, {"detail": "Not Found"})
        with small.lock:
            small.changes.append((what, body))
        done = small.load(**body) if what.startswith("load") else small.unload(**body)
        if isinstance(done, str):
            return self.answer(200, done)
        kind, code, words = done
        return self.answer(code, {"error": {"message": words, "type": kind, "param": None, "code": code}})

    def reply(self, body, fault):
        known = [*self.server.small.models, *self.server.small.adapters]
        if body.get("model") not in known:
            words = f"The model `{body.get('model')}` does not exist."
            return self.answer(404, {"error": {"message": words, "type": "NotFoundError", "code": 404}})
        if self.server.small.status is not None:
            self.answer(self.server.small.status, {"error": "the prompt is too long"})
        elif fault in REFUSALS:
            self.answer(*REFUSALS[fault])
        elif fault == "slow":
            time.sleep(2.5)
        elif fault == "reset" or self.server.small.is_dead():
            self.close_connection = True
            self.connection.close()
        else:
            text = json.dumps(self.server.small.completion(body))
            self.answer(200, text[: len(text) // 2] if fault == "truncated" else text)
        return None

    def answer(self, code, content, headers=()):
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(code)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class SmallServer:
    """Serves a network on loopback for the length of a `with` block.

    faults: taken one by one, one a request, before it answers properly: 429, 500, slow, truncated, reset, list
    style: "ids", "names" (token_id:N among the log-probs), "content" (llama.cpp's log-probs, with ids), "text" (no
        ids), "no_eos" (ids without the EOS)
    ends: what the server calls an answer that ended and one that was cut
    more: fields of every choice; limit: tokens of an answer at most, whatever is asked for
    updating: VLLM_ALLOW_RUNTIME_LORA_UPDATING; rank: --max-lora-rank, None without --enable-lora
    stays: an adapter's unloading fails
    dies: after so many answers it answers nothing any more
    """

    def __init__(
        self,
        network,
        faults=(),
        style="ids",
        status=None,
        models=("small",),
        pause=0.0,
        ends=("stop", "length"),
        more=None,
        limit=1000,
        updating=False,
        rank=16,
        stays=False,
        dies=None,
    ):
        self.dies = dies
        self.updating, self.rank, self.stays = updating, rank, stays
        self.adapters, self.changes = {}, []
        self.ends, self.more, self.limit = ends, more or {}, limit
        self.network, self.faults, self.style, self.status = network, list(faults), style, status
        self.models, self.pause = models, pause
        self.asked, self.at_once, self.most_at_once = [], 0, 0
        self.lock = threading.Lock()
        ThreadingHTTPServer.request_queue_size = 128
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.small = self
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def is_dead(self):
        return self.dies is not None and len(self.asked) > self.dies

    def load(self, lora_name, lora_path):
        if not lora_name or not lora_path:
            return "InvalidUserInput", 400, "Both 'lora_name' and 'lora_path' must be provided."
        if lora_name in self.adapters:
            return "InvalidUserInput", 400, f"The lora adapter '{lora_name}' has already been loaded."
        if not Path(lora_path, "adapter_config.json").is_file():
            return "NotFoundError", 404, f"Loading lora {lora_name} failed: No adapter found for {lora_path}"
        if self.rank is None:
            return "InternalServerError", 500, "LoRA is not enabled. Use --enable-lora to enable LoRA."
        rank = json.loads(Path(lora_path, "adapter_config.json").read_text())["r"]
        if rank > self.rank:
            return "InternalServerError", 500, f"LoRA rank {rank} is greater than max_lora_rank {self.rank}."
        self.adapters[lora_name] = PeftModel.from_pretrained(copy.deepcopy(self.network), lora_path).eval()
        return f"Success: LoRA adapter '{lora_name}' added successfully."

    def unload(self, lora_name):
        if lora_name not in self.adapters:
            return "NotFoundError", 404, f"The lora adapter '{lora_name}' cannot be found."
        if self.stays:
            return "InternalServerError", 500, f"Failed to remove lora adapter '{lora_name}' from the engine."
        del self.adapters[lora_name]
        return f"Success: LoRA adapter '{lora_name}' removed successfully."

    def completion(self, body):
        limit = min(self.limit, body["max_tokens"])
        network = self.adapters.get(body["model"], self.network)
        answer, logp = naive(network, body["prompt"], body["seed"], limit, body["temperature"])
        stopped = answer[-1] == 1
        if self.style == "no_eos" and stopped:
            answer, logp = answer[:-1], logp[:-1]
        names = [f"token_id:{i}" if self.style == "names" else f"w{i}" for i in answer]
        choice = {"index": 0, "text": "...", "finish_reason": self.ends[not stopped], **self.more}
        choice["logprobs"] = {"tokens": names, "token_logprobs": logp}
        if self.style == "content":
            content = [{"id": i, "token": f"w{i}", "logprob": value} for i, value in zip(answer, logp, strict=True)]
            choice["logprobs"] = {"content": content}
        if self.style in ("ids", "no_eos") and body.get("return_token_ids"):
            choice["token_ids"] = answer
        return {"object": "text_completion", "choices": [choice]}

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.http.shutdown()
        self.http.server_close()
