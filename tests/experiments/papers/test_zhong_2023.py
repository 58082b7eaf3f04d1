"""How the digits are shared out, and that freezing begins half-way."""

import numpy as np

from experiments.papers.claims.zhong_2023 import share
from experiments.study.data import load


def test_two_classes_for_each_client_and_two_clients_for_each_class():
    clients = share(iid=False)
    # Shards are cut by count: a few examples are of a third class.
    usual = [np.bincount(labels, minlength=10) for labels in clients.labels]
    held = np.array(usual) > 20
    assert held.sum(axis=1).tolist() == [2] * 10
    assert held.sum(axis=0).tolist() == [2] * 10
    assert clients.x.shape == (10, clients.labels.shape[1], 64)


def test_the_same_images_once_each():
    data = load("digits")
    for iid in (False, True):
        clients = share(iid)
        count = clients.labels.size
        assert count > 0.98 * len(data.train_labels)
        brightness = clients.x.sum(axis=2).sum() / (data.train_images.astype(float).sum() / 16)
        assert 0.98 < brightness <= 1
    counts = np.array([np.bincount(labels, minlength=10) for labels in share(iid=True).labels])
    assert counts.min() >= 4
