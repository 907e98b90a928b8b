"""Products against dense matrices, quadratics in one step, and what a step must not do."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lstmopt.errors import ConfigError
from lstmopt.optim.conjugate_gradients import conjugate_gradients
from lstmopt.optim.kfac import KFAC
from lstmopt.optim.natural_gradient import NaturalGradient
from lstmopt.optim.newton_cg import NewtonCG
from lstmopt.optim.products import flat, split

NEWTONS = [NaturalGradient, NewtonCG]
ALL = [*NEWTONS, KFAC]


class Net(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.lstm = nn.LSTM(2, 3, 2, batch_first=True, dropout=dropout)
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0])


def bernoulli(out, y):
    return F.binary_cross_entropy_with_logits(out, y, reduction="none").sum(-1).mean()


def cross_entropy(out, y):
    return F.cross_entropy(out.flatten(0, 1), y.flatten())


def problem(kind, dtype=torch.float64, dropout=0.0):
    torch.manual_seed(0)
    net, x = Net(dropout).to(dtype), torch.randn(4, 5, 2, dtype=dtype)
    criterion, y = {
        "mse": (F.mse_loss, torch.randn(4, 5, 3, dtype=dtype)),
        "cross_entropy": (cross_entropy, torch.randint(3, (4, 5))),
        "bernoulli": (bernoulli, torch.randint(2, (4, 5, 3)).to(dtype)),
    }[kind]
    assert sum(p.numel() for p in net.parameters()) <= 300
    return net, x, y, criterion


def closure_of(optimizer, net, x, y, criterion=F.mse_loss, seen=None):
    def closure():
        optimizer.zero_grad()
        with optimizer.forward():
            out = net(x)
        loss = criterion(out, y)

        def sampled():
            return criterion(out, (out + torch.randn_like(out) * 0.5**0.5).detach()) * y.numel() ** 0.5

        def again():
            value = criterion(net(x), y)
            if seen is not None:
                seen.append((loss.detach(), value))
            return value

        optimizer.backward(loss, out, sampled, again)
        return loss

    return closure


def dense(product, net):
    size = sum(p.numel() for p in net.parameters())
    return torch.stack([product(v) for v in torch.eye(size, dtype=torch.float64)])


def functional(net, x):
    """The predictions as a function of one vector."""
    names, like = zip(*net.named_parameters(), strict=True)
    return lambda v: torch.func.functional_call(net, dict(zip(names, split(v, like), strict=True)), (x,))


def near(found, exact, relative=1e-5):
    assert float((found - exact).norm() / exact.norm()) < relative


@pytest.mark.parametrize("kind", ["mse", "cross_entropy", "bernoulli"])
def test_hessian_products_against_the_dense_hessian(kind):
    net, x, y, criterion = problem(kind)
    optimizer = NewtonCG(net.parameters())
    closure_of(optimizer, net, x, y, criterion)()
    predict = functional(net, x)
    exact = torch.func.hessian(lambda v: criterion(predict(v), y))(flat([*net.parameters()]).detach())
    near(dense(optimizer._kept[1], net), exact)
    torch.testing.assert_close(dense(optimizer._kept[1], net), exact, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", ["mse", "cross_entropy", "bernoulli"])
def test_fisher_products_against_the_dense_fisher_information(kind):
    """J^T H J with explicit J and H, and the mean over all labels of the outer products of gradients."""
    net, x, y, criterion = problem(kind)
    optimizer = NaturalGradient(net.parameters())
    closure_of(optimizer, net, x, y, criterion)()
    found = dense(optimizer._kept[1], net)
    predict, weights = functional(net, x), flat([*net.parameters()]).detach()
    out = predict(weights).detach()
    jacobian = torch.func.jacrev(predict)(weights).flatten(0, 2)
    bent = torch.func.hessian(lambda o: criterion(o, y))(out).reshape(len(jacobian), len(jacobian))
    near(found, jacobian.T @ bent @ jacobian)

    if kind == "mse":  # gradient of -log p is 2 (out - y), with a variance of 1/2 of y
        fisher = 2 * jacobian.T @ jacobian / y.numel()
    elif kind == "bernoulli":
        variance = (out.sigmoid() * (1 - out.sigmoid())).flatten()
        fisher = jacobian.T @ (variance[:, None] * jacobian) / 20
    else:
        fisher, per_label = 0, jacobian.view(20, 3, -1)
        for label in range(3):
            slope = out.flatten(0, 1).softmax(-1) - F.one_hot(torch.tensor(label), 3)
            gradient = torch.einsum("nk,nkp->np", slope, per_label)
            fisher = fisher + gradient.T @ (out.flatten(0, 1).softmax(-1)[:, label, None] * gradient) / 20
    near(found, fisher)


def test_conjugate_gradients_solve_and_stop_at_negative_curvature():
    torch.manual_seed(0)
    root, b, start = torch.randn(8, 8, dtype=torch.float64), *torch.randn(2, 8, dtype=torch.float64)
    rough = torch.rand(8, dtype=torch.float64) + 0.5
    matrix = root @ root.T + torch.eye(8, dtype=torch.float64)
    for begin in (None, start):
        found = conjugate_gradients(lambda v: matrix @ v, b, begin, rough, 20, 1e-12)
        torch.testing.assert_close(found.x, torch.linalg.solve(matrix, b))
        torch.testing.assert_close(found.image, matrix @ found.x)
        assert not found.negative_curvature
    saddle = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    found = conjugate_gradients(lambda v: saddle @ v, torch.tensor([2.0, 1.0]), None, torch.tensor([1.0, 0.5]), 9, 0.0)
    assert found.negative_curvature and found.x @ torch.tensor([2.0, 1.0]) > 0
    found = conjugate_gradients(lambda v: -v, torch.tensor([2.0, 1.0]), None, torch.tensor([1.0, 0.5]), 9, 0.0)
    torch.testing.assert_close(found.x, torch.tensor([2.0, 2.0]))  # nothing found yet: steepest descent
    assert found.negative_curvature and torch.equal(found.image, -found.x)


@pytest.mark.parametrize("cls", NEWTONS)
def test_linear_regression_is_solved_in_one_step(cls):
    torch.manual_seed(0)
    net, x, y = nn.Linear(5, 2).double(), torch.randn(40, 5).double(), torch.randn(40, 2).double()
    optimizer = cls(net.named_parameters(), lr=1.0, damping=0.0, cg_iterations=100, cg_tolerance=1e-13)
    optimizer.step(closure_of(optimizer, net, x, y))
    exact = torch.linalg.lstsq(torch.cat((x, torch.ones(40, 1).double()), dim=1), y).solution
    torch.testing.assert_close(torch.cat((net.weight.T, net.bias[None])), exact)


def test_newton_goes_down_from_negative_curvature():
    """(w^2 - 1)^2 is concave at 0.1; its minimum is at 1."""
    net = nn.Linear(1, 1, bias=False).double()
    net.weight.data.fill_(0.1)
    optimizer, losses = NewtonCG(net.parameters(), damping=0.01, damping_decay=0.5), []
    x = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(40):
        closure = closure_of(optimizer, net, x, x, lambda out, y: ((out**2 - y) ** 2).mean())
        losses.append(float(optimizer.step(closure).detach()))
    assert all(after <= before for before, after in zip(losses, losses[1:], strict=False))
    assert abs(net.weight.item()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("cls", NEWTONS)
@pytest.mark.parametrize("lr", [1e9, float("inf"), float("nan")])
def test_a_bad_step_is_taken_back(cls, lr):
    net, x, y, _ = problem("mse", torch.float32, dropout=0.5)
    optimizer, seen = cls(net.parameters(), lr=lr, damping=0.5, damping_decay=0.5), []
    before = copy.deepcopy(net.state_dict())
    random = torch.get_rng_state()
    optimizer.step(closure_of(optimizer, net, x, y, seen=seen))
    assert len(seen) == 1 and not seen[0][1] <= seen[0][0]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert optimizer.param_groups[0]["damping"] == 1.0
    after = torch.get_rng_state()
    torch.set_rng_state(random)
    net(x)
    assert torch.equal(after, torch.get_rng_state()), "looking again has used random numbers"


@pytest.mark.parametrize("cls", NEWTONS)
def test_a_gradient_that_is_not_finite_changes_nothing(cls):
    net, x, y, _ = problem("mse", torch.float32)
    optimizer, before = cls(net.parameters()), copy.deepcopy(net.state_dict())
    optimizer.step(closure_of(optimizer, net, x * float("nan"), y))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert optimizer.state_dict()["state"] == {}


@pytest.mark.parametrize("cls", NEWTONS)
def test_the_loss_is_looked_at_with_the_same_dropout(cls):
    net, x, y, _ = problem("mse", torch.float32, dropout=0.5)
    optimizer, seen = cls(net.parameters(), lr=1e-30), []
    for _ in range(3):
        optimizer.step(closure_of(optimizer, net, x, y, seen=seen))
    assert len({loss.item() for loss, _ in seen}) == 3
    assert all(torch.equal(loss, value) for loss, value in seen)


@pytest.mark.parametrize("cls", NEWTONS)
def test_damping_follows_the_ratio(cls):
    """On a quadratic the model is exact; at twice the way to its minimum nothing is gained, and it foretells that."""
    torch.manual_seed(0)
    net, x, y = nn.Linear(3, 1).double(), torch.randn(9, 3).double(), torch.randn(9, 1).double()
    optimizer = cls(net.parameters(), damping=1.0, damping_decay=0.5, min_damping=0.2)
    for expected in (0.5, 0.25, 0.2):
        optimizer.step(closure_of(optimizer, net, x, y))
        assert optimizer.param_groups[0]["damping"] == expected


@pytest.mark.parametrize("cls", NEWTONS)
@pytest.mark.parametrize("rates", [(1.0, 1.0), (0.3, 0.3), (1.0, 0.1)])
def test_the_reduction_is_foretold_with_several_rates(cls, rates):
    """Of w B w / 2, with B = [[1, 0.9], [0.9, 1]]: it is what the loss falls by, and the damping falls."""
    net = nn.ModuleList([nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)]).double()
    for layer, start in zip(net, (-1.0, 0.5), strict=True):
        nn.init.constant_(layer.weight, start)
    x = torch.linalg.cholesky(torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double()).T
    groups = [{"params": layer.parameters(), "lr": lr} for layer, lr in zip(net, rates, strict=True)]
    optimizer = cls(groups, damping=1e-9, damping_decay=0.5, min_damping=0.0, cg_iterations=9, cg_tolerance=1e-12)
    optimizer.step(closure_of(optimizer, lambda x: net[0](x[:, :1]) + net[1](x[:, 1:]), x, torch.zeros(2, 1).double()))
    assert [group["damping"] for group in optimizer.param_groups] == [0.5e-9] * 2


@pytest.mark.parametrize("cls", NEWTONS)
def test_lr_scales_the_step(cls):
    moves = []
    for lr in (0.25, 0.5):
        net, x, y, _ = problem("mse")
        optimizer, before = cls(net.parameters(), lr=lr, damping=1.0), flat([*net.parameters()]).detach()
        optimizer.step(closure_of(optimizer, net, x, y))
        moves.append(flat([*net.parameters()]).detach() - before)
    torch.testing.assert_close(2 * moves[0], moves[1])


@pytest.mark.parametrize("cls", ALL)
def test_without_gradients_nothing_changes(cls):
    net, x, y, _ = problem("mse", torch.float32)
    optimizer = cls(net.parameters(), damping=1.0)
    optimizer.watch(net)
    for _ in range(3):
        optimizer.step(closure_of(optimizer, net, x, y))
    before, state = copy.deepcopy(net.state_dict()), copy.deepcopy(optimizer.state_dict())

    def thrown_out():
        loss = closure_of(optimizer, net, x, y)()
        optimizer.zero_grad()
        return loss

    optimizer.step(thrown_out)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    after = optimizer.state_dict()
    assert after["param_groups"] == state["param_groups"]
    for key, values in state["state"].items():
        torch.testing.assert_close(after["state"][key], values, rtol=0, atol=0)
    optimizer.step(closure_of(optimizer, net, x, y))
    assert not torch.equal(before["head.weight"], net.head.weight)


@pytest.mark.parametrize("cls", ALL)
def test_goes_on_bitwise_from_its_state(cls, tmp_path):
    net, x, y, _ = problem("mse", torch.float32, dropout=0.3)
    groups = [{"params": net.lstm.parameters(), "lr": 0.2}, {"params": net.head.parameters()}]
    optimizer = cls(groups, lr=0.3)
    optimizer.watch(net)
    for _ in range(4):
        optimizer.step(closure_of(optimizer, net, x, y))
    torch.save((net.state_dict(), optimizer.state_dict(), torch.get_rng_state()), tmp_path / "saved")
    for _ in range(8):
        optimizer.step(closure_of(optimizer, net, x, y))
    weights, state, random = torch.load(tmp_path / "saved", weights_only=True)
    fresh = Net(0.3)
    fresh.load_state_dict(weights)
    resumed = cls([{"params": fresh.lstm.parameters()}, {"params": fresh.head.parameters()}])
    resumed.watch(fresh)
    resumed.load_state_dict(state)
    torch.set_rng_state(random)
    for _ in range(8):
        resumed.step(closure_of(resumed, fresh, x, y))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), fresh.parameters(), strict=True))


@pytest.mark.parametrize("cls", NEWTONS)
def test_accumulation_is_refused(cls):
    net, x, y, _ = problem("mse", torch.float32)
    optimizer = cls(net.parameters())
    closure_of(optimizer, net, x, y)()
    with pytest.raises(ConfigError, match="accumulate"):
        closure_of(optimizer, net, x, y)()
