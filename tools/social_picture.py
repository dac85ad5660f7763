"""Draw assets/static/social.png, the picture beside a link to the book, from the recorded VGG runs."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from course.figures import COLORS, style
from course.recordings import load

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 1200, 630  # what the sites that show such pictures ask for
rows, _ = load(ROOT / "recordings" / "vgg-cifar10")

style()
figure, axes = plt.subplots(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, layout=None)
axes.set_position([0.09, 0.13, 0.87, 0.5])
probes = (rows["kind"] == "landscape") & (rows["lr"] == 0.1)
seeds = np.unique(rows["seed"][probes])
for network, color, words in (
    ("standard", "standard", "without batch normalization"),
    ("batchnorm", "bn", "with batch normalization"),
):
    mine = probes & (rows["network"] == network)
    steps = np.unique(rows["step"][mine])
    ends = [
        [
            np.median(
                [end(rows["loss"][mine & (rows["step"] == step) & (rows["seed"] == seed)]) for seed in seeds]
            )
            for step in steps
        ]
        for end in (np.min, np.max)
    ]
    axes.fill_between(steps, *ends, color=COLORS[color], alpha=0.8, linewidth=0, label=words)
axes.set(
    yscale="log", xlim=(0, steps[-1]), yticks=[0.5, 1, 2, 5, 10, 20], yticklabels=["0.5", 1, 2, 5, 10, 20]
)
axes.minorticks_off()
axes.set_xlabel("training step", fontsize=18)
axes.set_ylabel("loss along the gradient", fontsize=18)
axes.tick_params(labelsize=16)
axes.legend(fontsize=18, loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2)
figure.text(0.04, 0.86, "Batch Normalization, Measured", fontsize=42, weight="bold")
figure.text(0.04, 0.765, "Why does it work? Every claim of two papers put to the test.", fontsize=24)
drawn = io.BytesIO()
figure.savefig(drawn, dpi=100)
Image.open(drawn).convert("RGB").quantize(64).save(ROOT / "assets" / "static" / "social.png", optimize=True)
