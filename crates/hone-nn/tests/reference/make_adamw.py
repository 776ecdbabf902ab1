"""Weights after a few AdamW steps of PyTorch, for the unit test in src/train/adamw.rs. Prints JSON."""

import json

import torch

torch.manual_seed(0)
start = torch.randn(6)
gradients = torch.randn(4, 6) * torch.tensor([1e-3, 1.0, 30.0, 1.0, 1e-6, 1.0])
cases = []
for beta1, beta2, eps, decay, clip in [(0.9, 0.999, 1e-8, 0.01, None), (0.4, 0.95, 1e-6, 0.3, 1.0)]:
    weight = torch.nn.Parameter(start.clone())
    optimiser = torch.optim.AdamW([weight], lr=0.02, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    norms, weights = [], []
    for gradient in gradients:
        weight.grad = gradient.clone()
        norms.append(torch.nn.utils.clip_grad_norm_([weight], clip or 1e30).item())
        optimiser.step()
        weights.append(weight.detach().tolist())
    cases.append({"beta1": beta1, "beta2": beta2, "epsilon": eps, "weight_decay": decay, "clip": clip,
                  "norms": norms, "weights": weights})
print(json.dumps({"torch": torch.__version__, "start": start.tolist(), "gradients": gradients.tolist(), "cases": cases}))
