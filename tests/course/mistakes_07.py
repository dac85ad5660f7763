"""Wrong answers to the exercises of chapter 7: number -> name of the mistake -> an answer that makes it."""

import torch


def eigenvalues(a):
    return torch.linalg.eigvals(a).real.sort().values


def singular(x):
    return torch.linalg.svdvals(x)


WRONG = {
    "7.1": {
        "sign forgotten": lambda x, s: ((s[1:] - s[:-1]) / (x[1:] - x[:-1])).amax(),
        "ends only": lambda x, s: abs(s[0] - s[-1]) / abs(x[0] - x[-1]),
        "mean": lambda x, s: sum(abs(s[1:] - s[:-1]) / (x[1:] - x[:-1])) / (len(x) - 1),
        "largest slope": lambda x, s: torch.linalg.vector_norm(s, float("inf")),
        "mixed pairs": lambda x, s: max(abs(s[1:] - s[:-1])) / min(x[1:] - x[:-1]),
        "not divided": lambda x, s: max(abs(s[1:] - s[:-1])),
        "one per pair": lambda x, s: abs(s[1:] - s[:-1]) / (x[1:] - x[:-1]),
    },
    "7.2": {
        "no quarter": lambda x: singular(x)[0] ** 2 / x.shape[0],
        "no mean": lambda x: singular(x)[0] ** 2 / 4,
        "singular value": lambda x: singular(x)[0] / (4 * x.shape[0]),
        "trace": lambda x: singular(x).square().sum() / (4 * x.shape[0]),
        "Lipschitz constant": lambda x: x.square().sum(1).sqrt().mean(),
        "smallest eigenvalue": lambda x: singular(x)[-1] ** 2 / (4 * x.shape[0]),
    },
    "7.3": {
        "linear model": lambda g, eta, beta: eta * torch.dot(g, g),
        "no half": lambda g, eta, beta: (eta - eta**2 * beta) * torch.dot(g, g),
        "length": lambda g, eta, beta: (eta - eta**2 * beta / 2) * torch.dot(g, g) ** 0.5,
        "plus": lambda g, eta, beta: (eta + eta**2 * beta / 2) * torch.dot(g, g),
        "best step": lambda g, eta, beta: torch.dot(g, g) / beta / 2,
        "eta not squared": lambda g, eta, beta: (eta - eta * beta / 2) * torch.dot(g, g),
    },
    "7.4": {
        "1 / beta": lambda a: (1 / eigenvalues(a)[-1], 2 / (eigenvalues(a)[0] + eigenvalues(a)[-1])),
        "slowest": lambda a: (2 / eigenvalues(a)[0], 2 / (eigenvalues(a)[0] + eigenvalues(a)[-1])),
        "trace": lambda a: (2 / eigenvalues(a).sum(), 2 / (eigenvalues(a)[0] + eigenvalues(a)[-1])),
        "best is 1 / beta": lambda a: (2 / eigenvalues(a)[-1], 1 / eigenvalues(a)[-1]),
        "half the best": lambda a: (2 / eigenvalues(a)[-1], 1 / (eigenvalues(a)[0] + eigenvalues(a)[-1])),
        "swapped": lambda a: (2 / (eigenvalues(a)[0] + eigenvalues(a)[-1]), 2 / eigenvalues(a)[-1]),
        "only the limit": lambda a: 2 / eigenvalues(a)[-1],
    },
    "7.5": {
        "lowest point": lambda a, x: 1 / ((a @ x) @ a @ (a @ x)) * torch.dot(a @ x, a @ x),
        "many steps": lambda a, x: 2 / eigenvalues(a)[-1],
        "along x": lambda a, x: 2 * torch.dot(x, x) / torch.dot(x, a @ x),
        "length": lambda a, x: 2 * torch.dot(a @ x, a @ x) ** 0.5 / ((a @ x) @ a @ (a @ x)),
        "best fixed step": lambda a, x: 2 / (eigenvalues(a)[0] + eigenvalues(a)[-1]),
    },
}
