"""Tests run in as many processes as there are cores: each computes on one thread, or they wait for each other."""

import torch

torch.set_num_threads(1)
