"""What a small transformer reaches on the same text and machine: nanoGPT's recipe for a CPU, in plain torch.

    python scripts/benchmarks/nanogpt.py --path DIR/tinyshakespeare/input.txt [--threads 2]

Its README's numbers: 4 layers, 4 heads, 128 wide, 64 characters of context, batches of 12, 2000 steps, no dropout;
AdamW at 1e-3 (betas 0.9 and 0.99, decay 0.1 of matrices), warm-up of 100 steps, cosine to 1e-4, clipping at 1. The
first 90 % of the text train, the rest validates. Prints the seconds of training and the loss on all of the latter.
"""

import argparse
import math
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

LAYERS, HEADS, WIDTH, CONTEXT, BATCH, STEPS, WARM_UP = 4, 4, 128, 64, 12, 2000, 100


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.attend, self.join = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.widen, self.narrow = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        parts = self.attend(self.before(x)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.join(mixed.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.widen(self.between(x))))


class GPT(nn.Module):
    def __init__(self, characters):
        super().__init__()
        self.tokens, self.places = nn.Embedding(characters, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks, self.last = nn.Sequential(*(Block() for _ in range(LAYERS))), nn.LayerNorm(WIDTH, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                deep = name.endswith(("join.weight", "narrow.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if deep else 0.02)

    def forward(self, x):
        out = self.last(self.blocks(self.tokens(x) + self.places.weight[: x.shape[1]]))
        return out @ self.tokens.weight.T


def loss_of(model, text, starts):
    window = text[starts[:, None] + torch.arange(CONTEXT + 1)]
    return F.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    characters = options.path.read_text()
    known = {character: index for index, character in enumerate(sorted(set(characters)))}
    text = torch.tensor([known[character] for character in characters])
    train, val = text[: int(0.9 * len(text))], text[int(0.9 * len(text)) :]
    model = GPT(len(known))
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    others = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    began = time.perf_counter()
    for step in range(STEPS):
        falling = 1e-4 + 0.5 * 9e-4 * (1 + math.cos(math.pi * (step - WARM_UP) / (STEPS - WARM_UP)))
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (step + 1) / (WARM_UP + 1) if step < WARM_UP else falling
        loss = loss_of(model, train, torch.randint(len(train) - CONTEXT, (BATCH,)))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 0:
            print(f"step {step}, loss {float(loss.detach()):.3f}, {time.perf_counter() - began:.0f} s", flush=True)
    seconds = time.perf_counter() - began
    with torch.no_grad():
        starts = torch.arange(0, len(val) - CONTEXT - 1, CONTEXT)
        losses = [float(loss_of(model, val, part)) * len(part) for part in starts.split(256)]
    print(f"{seconds:.1f} s of training, val/loss {sum(losses) / len(starts):.4f}")


if __name__ == "__main__":
    main()
