"""K-FAC's step against dense linear algebra, what is left to Adam, and what is refused."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lstmopt.errors import ConfigError
from lstmopt.optim.kfac import KFAC


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Net(nn.Module):
    """Classes of sequences, from the last step."""

    def __init__(self, layers=1, bias=True):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 3, layers, batch_first=True, bias=bias), nn.Linear(3, 4, bias=bias)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def trained(net, x, y, steps=1, **options):
    optimizer = KFAC(net.named_parameters(), **options)
    optimizer.watch(net)
    for _ in range(steps):
        optimizer.zero_grad()
        with optimizer.forward():
            out = net(x)
        drawn = torch.multinomial(out.detach().softmax(-1), 1)[:, 0]
        optimizer.backward(
            F.cross_entropy(out, y),
            out,
            lambda out=out, drawn=drawn: F.cross_entropy(out, drawn) * len(x) ** 0.5,
            lambda: F.cross_entropy(net(x), y),
        )
        before = [p.detach().clone() for p in net.parameters()]
        optimizer.step()
    return optimizer, [a.detach() - b for a, b in zip(net.parameters(), before, strict=True)]


@pytest.mark.parametrize("bias", [True, False])
def test_the_step_is_the_damped_inverse_times_the_gradient(bias):
    net, x, y = Net(2, bias).double(), torch.randn(6, 5, 2).double(), torch.randint(4, (6,))
    optimizer, moves = trained(net, x, y, lr=0.1, damping=0.03, kl_clip=1e9, momentum=0.9)
    moved = dict(zip([name for name, _ in net.named_parameters()], moves, strict=True))
    matrices = [[f"lstm.weight_ih_l{k}", f"lstm.weight_hh_l{k}", f"lstm.bias_ih_l{k}"] for k in range(2)]
    for names in [*matrices, ["head.weight", "head.bias"]]:
        names = names if bias else [name for name in names if "bias" not in name]
        parameters = dict(net.named_parameters())
        state = optimizer.state[parameters[names[0]]]
        a, g = state["A"], state["G"]
        pi = (a.trace() / len(a) / (g.trace() / len(g))).sqrt()
        a, g = a + pi * 0.03**0.5 * torch.eye(len(a)), g + 0.03**0.5 / pi * torch.eye(len(g))
        gradient = torch.cat([parameters[name].grad.view(len(g), -1) for name in names], dim=1)
        exact = -0.1 * torch.linalg.solve(torch.kron(g, a), gradient.flatten()).view_as(gradient)
        for name in names:  # the sum of two biases makes the step of one
            if "bias_ih" in name:
                torch.testing.assert_close(moved[name], moved[name.replace("ih", "hh")])
                moved[name] = 2 * moved[name]
        torch.testing.assert_close(torch.cat([moved[name].view(len(g), -1) for name in names], dim=1), exact)


def test_a_long_step_is_shortened():
    net, x, y = Net().double(), torch.randn(6, 5, 2).double(), torch.randint(4, (6,))
    other = copy.deepcopy(net)
    torch.manual_seed(0)
    _, whole = trained(net, x, y, lr=2.0, kl_clip=1e9)
    length = sum((-2.0 * move * p.grad).sum() for p, move in zip(net.parameters(), whole, strict=True))
    torch.manual_seed(0)
    _, moves = trained(other, x, y, lr=2.0, kl_clip=1e-4)
    for move, long in zip(moves, whole, strict=True):
        torch.testing.assert_close(move, (1e-4 / length) ** 0.5 * long)  # its square is 1e-4 now


def test_other_parameters_are_adams():
    class Embedded(Net):
        def __init__(self):
            super().__init__()
            self.embedding, self.tied = nn.Embedding(5, 2), nn.Linear(2, 5, bias=False)
            self.tied.weight = self.embedding.weight

        def forward(self, x):
            return super().forward(self.embedding(x)) + self.tied(self.embedding(x[:, 0]))[:, :4]

    net, x, y = Embedded(), torch.randint(5, (6, 7)), torch.randint(4, (6,))
    shadow = nn.Parameter(net.embedding.weight.detach().clone())
    adam = torch.optim.Adam([shadow], lr=0.01)
    optimizer = KFAC(net.parameters(), lr=0.1, adam_lr=0.02)
    optimizer.param_groups[0]["lr"] = 0.05  # as a schedule does
    optimizer.watch(net)
    for _ in range(5):
        optimizer.zero_grad()
        with optimizer.forward():
            out = net(x)
        loss = F.cross_entropy(out, y)
        optimizer.backward(loss, out, lambda out=out: F.cross_entropy(out, y), None)
        shadow.grad = net.embedding.weight.grad.clone()
        optimizer.step()
        adam.step()
    torch.testing.assert_close(net.embedding.weight, shadow)
    assert set(optimizer.state[net.lstm.weight_ih_l0]) >= {"A", "G", "momentum"}


def test_layers_that_are_too_large_are_adams():
    net, x, y = Net(), torch.randn(6, 5, 2), torch.randint(4, (6,))
    optimizer, _ = trained(net, x, y, max_size=11)
    assert "A" in optimizer.state[net.head.weight] and "mean" in optimizer.state[net.lstm.weight_ih_l0]


def test_what_it_does_not_know_is_refused():
    for lstm in (nn.LSTM(2, 3, bidirectional=True), nn.LSTM(2, 3, proj_size=2)):
        with pytest.raises(ConfigError, match="one-directional"):
            KFAC(lstm.parameters()).watch(lstm)
    net = nn.LSTM(2, 3)
    optimizer = KFAC(net.parameters())
    optimizer.watch(net)
    with pytest.raises(ConfigError, match="packed"), optimizer.forward():
        net(nn.utils.rnn.pack_sequence([torch.randn(4, 2), torch.randn(2, 2)]))
    net(torch.randn(4, 1, 2))[0].sum().backward()
    with pytest.raises(ConfigError, match="watch"):
        optimizer.step()


def test_a_module_that_first_runs_between_two_looks_is_told_of():
    net, late, x, y = Net(), nn.Linear(4, 4), torch.randn(6, 5, 2), torch.randint(4, (6,))
    for every, refused in ((5, True), (1, False)):
        optimizer = KFAC([*net.parameters(), *late.parameters()], factor_every=every)
        optimizer.watch(nn.ModuleList([net, late]))
        for step in range(2):
            optimizer.zero_grad()
            with optimizer.forward():
                out = net(x) if step == 0 else late(net(x))
            loss = F.cross_entropy(out, y)
            optimizer.backward(loss, out, lambda out=out: F.cross_entropy(out, y), None)
            if step and refused:
                with pytest.raises(ConfigError) as told:
                    optimizer.step()
                assert "type optimizer.factor_every=1" in told.value.hint
            else:
                optimizer.step()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_predictions_that_are_no_numbers_give_gradients_and_no_labels(value):
    """Drawing from them would break off with torch's RuntimeError; what follows is for the user of the gradients."""
    net, x, y = Net(), torch.randn(6, 5, 2), torch.randint(4, (6,))
    optimizer, _ = trained(net, x, y, steps=2, factor_every=1)
    factors = optimizer.state[net.head.weight]["A"].clone()
    optimizer.zero_grad()
    with optimizer.forward():
        out = net(x) * value
    optimizer.backward(
        F.cross_entropy(out, y),
        out,
        lambda: F.cross_entropy(out, torch.multinomial(out.detach().softmax(-1), 1)[:, 0]),
        None,
    )
    assert all(p.grad.isnan().any() for p in net.parameters())
    optimizer.zero_grad()  # as a callback does
    optimizer.step()
    assert torch.equal(optimizer.state[net.head.weight]["A"], factors)
