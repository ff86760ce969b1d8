"""A server for `sampler.start` that is there at once: no weights, no libraries; run as a program.

Every answer is one word that its seed chooses, and the EOS. `--as` says what goes wrong; `--log` gets a line for each
start: the process, its port and the model.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("well", "deaf", "dies", "exits", "hangs", "unhealthy", "plain", "once")


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.server.fault == "unhealthy":
            return self.answer(503, {"error": "loading"})
        if self.path == "/health":
            return self.answer(404 if self.server.fault == "plain" else 200, {})
        return self.answer(200, {"data": [{"id": self.server.model}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/load_lora_adapter"):
            if not body["lora_path"]:
                return self.answer(400, {"error": "Both must be provided."})
            self.server.adapters.append(body["lora_name"])
            return self.answer(200, {})
        if self.path.endswith("/unload_lora_adapter"):
            return self.answer(200, {})
        self.server.left -= 1
        if self.server.fault == "dies" and self.server.left < 0:
            os._exit(3)
        if body["model"] not in (self.server.model, *self.server.adapters):
            return self.answer(404, {"error": f"The model `{body['model']}` does not exist."})
        choice = {"finish_reason": "stop", "text": "", "token_ids": [3 + body["seed"] % 30, 1]}
        return self.answer(200, {"choices": [choice]})

    def answer(self, code, content):
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--as", dest="fault", choices=FAULTS, default="well")
    parser.add_argument("--log")
    options = parser.parse_args()
    again = options.log and os.path.isfile(options.log)
    if options.log:
        with open(options.log, "a") as log:
            log.write(f"{os.getpid()} {options.port} {options.model}\n")
    print("secret is", os.environ.get("SOME_API_KEY"), flush=True)
    if options.fault == "exits":
        sys.exit("no such weights")
    if options.fault == "hangs" or (options.fault == "once" and again):
        time.sleep(600)
    if options.fault == "deaf":  # and so is its child
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.posix_spawn("/bin/sleep", ["sleep", "600"], os.environ)
    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.fault, server.model, server.adapters = options.fault, options.model, []
    server.left = 6
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()


if __name__ == "__main__":
    main()
