"""One thread per process: small networks run slower, not faster, on several threads."""

import torch

torch.set_num_threads(1)
