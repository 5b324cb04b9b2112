"""Seconds of torch's f16 products (cuBLAS) on the first GPU: SHAPES TOKENS, as bench.ts gives them."""

import json
import sys

import torch

APART = 256 * 2**20
MOST_COPIES = 64
PRODUCTS = 64

if not torch.cuda.is_available():
    sys.exit("torch sees no GPU")
seconds = {}
for shape in sys.argv[1].split(","):
    outputs, inputs = map(int, shape.split("x"))
    copies = min(MOST_COPIES, -(-APART // (outputs * inputs * 2)))
    weights = [torch.randn(outputs, inputs, dtype=torch.float16, device="cuda") for _ in range(copies)]
    for tokens in map(int, sys.argv[2].split(",")):
        x = torch.randn(tokens, inputs, dtype=torch.float16, device="cuda")
        products = max(PRODUCTS, copies)
        out = torch.empty(tokens, outputs, dtype=torch.float16, device="cuda")

        def work():
            for i in range(products):
                torch.matmul(x, weights[i % copies].T, out=out)

        work()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        graph.replay()
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        seconds[f"{shape}x{tokens}"] = start.elapsed_time(end) / 1000 / products
print(json.dumps(seconds))
