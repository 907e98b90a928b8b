"""K-FAC's factors against hand-written loops and exact expectations over labels."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lstmopt.data.batch import Batch, DataSpec
from lstmopt.models.padded_lstm import PaddedLSTM
from lstmopt.optim.kfac import KFAC
from lstmopt.optim.kronecker_factors import Run, lstm_rows
from lstmopt.optim.natural_gradient import NaturalGradient
from lstmopt.tasks.classification import Classification
from lstmopt.tasks.forecasting import Forecasting
from lstmopt.tasks.language_modeling import LanguageModeling
from lstmopt.tasks.polyphonic import Polyphonic
from lstmopt.tasks.tagging import Tagging


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


def by_hand(lstm, x, state):
    """Every layer's inputs and gates `[T][B, ...]`, its outputs, and the last states; x is `[T, B, F]`."""
    inputs, gates, last_h, last_c = [], [], [], []
    for layer in range(lstm.num_layers):
        w, u, b, d = (getattr(lstm, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        h, c = state[0][layer], state[1][layer]
        inputs.append([]), gates.append([])
        out = []
        for x_t in x:
            inputs[-1].append(torch.cat((x_t, h, torch.ones(len(h), 1)), dim=1))
            gates[-1].append(x_t @ w.T + b + h @ u.T + d)
            i, f, g, o = gates[-1][-1].chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            out.append(h)
        x = out
        last_h.append(h), last_c.append(c)
    return inputs, gates, torch.stack(out), torch.stack(last_h), torch.stack(last_c)


@pytest.mark.parametrize("batch_first", [False, True])
def test_rows_against_a_loop_by_hand(batch_first):
    """Inputs and gate gradients of two layers, with a first state, from a loss of the outputs and the last states."""
    lstm = nn.LSTM(2, 3, 2, batch_first=batch_first).double()
    x, state = torch.randn(5, 4, 2).double(), (torch.randn(2, 4, 3).double(), torch.randn(2, 4, 3).double())
    weights = [torch.randn(5, 4, 3).double(), torch.randn(2, 4, 3).double(), torch.randn(2, 4, 3).double()]
    turn = (lambda v: v.transpose(0, 1)) if batch_first else (lambda v: v)
    out, (h, c) = lstm(turn(x), state)
    loss = sum((value.sin() * w).sum() for value, w in zip((turn(out), h, c), weights, strict=True))
    gradients = torch.autograd.grad(loss, (out, h, c))
    found = lstm_rows(lstm, Run(turn(x), state, (out, h, c), torch.get_rng_state()), gradients)

    torch.set_default_dtype(torch.float64)
    try:
        inputs, gates, *values = by_hand(lstm, x, state)
    finally:
        torch.set_default_dtype(torch.float32)
    loss = sum((value.sin() * w).sum() for value, w in zip(values, weights, strict=True))
    for layer, (given, gradient) in enumerate(found):
        expected = torch.autograd.grad(loss, gates[layer], retain_graph=True)
        torch.testing.assert_close(given, torch.cat(inputs[layer]), atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(gradient, torch.cat(expected), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_make_the_gradient_also_with_dropout(dtype):
    """The sum of g a^T over rows is the gradient of [W_ih, W_hh, b], dropped units and all."""
    lstm, x = nn.LSTM(2, 5, 3, dropout=0.5).to(dtype), torch.randn(7, 4, 2, dtype=dtype)
    random = torch.get_rng_state()
    out, (h, c) = lstm(x)
    loss = out.sin().sum() + c.sum()
    gradients = torch.autograd.grad(loss, (out, h, c), retain_graph=True, materialize_grads=True)
    loss.backward()
    before = torch.get_rng_state()
    rows = lstm_rows(lstm, Run(x, None, (out, h, c), random), gradients)
    assert torch.equal(before, torch.get_rng_state())
    for layer, (given, gradient) in enumerate(rows):
        names = [f"{name}_l{layer}" for name in ("weight_ih", "weight_hh", "bias_hh")]
        exact = torch.cat([getattr(lstm, name).grad.view(20, -1) for name in names], dim=1)
        torch.testing.assert_close(gradient.T @ given, exact)


def test_rows_of_unequal_lengths_make_the_gradient():
    lstm = PaddedLSTM(2, 5, 3, dropout=0.5).double()
    x, state = torch.randn(7, 4, 2).double(), (torch.randn(3, 4, 5).double(), torch.randn(3, 4, 5).double())
    optimizer, lengths = KFAC(lstm.parameters()), torch.tensor([7, 2, 0, 5])
    optimizer.watch(lstm)
    with optimizer.forward():
        out, (h, c) = lstm(x, hx=state, lengths=lengths)
    loss = out.sin().sum() + h.square().sum() + c.sum()
    gradients = torch.autograd.grad(loss, (out, h, c), retain_graph=True)
    loss.backward()
    ((_, run),) = optimizer._runs
    for layer, (given, gradient) in enumerate(lstm_rows(lstm, run, gradients)):
        names = [f"{name}_l{layer}" for name in ("weight_ih", "weight_hh", "bias_hh")]
        exact = torch.cat([getattr(lstm, name).grad.view(20, -1) for name in names], dim=1)
        torch.testing.assert_close(gradient.T @ given, exact)
        assert not gradient.view(7, 4, 20)[torch.arange(7)[:, None] >= lengths].any()


def look(optimizer, net, x, weights):
    """One look at the factors, each sequence's log-likelihood of each label in turn weighted; the sum of all G."""
    total = {}
    for label in range(4):
        with optimizer.forward():
            out = net(x)
        log_p = out.log_softmax(-1)
        sampled = -(weights[:, label] * log_p[:, label]).sum()
        optimizer.backward(log_p.mean(), out, lambda sampled=sampled: sampled, None)
        for block, a, g in optimizer._found:
            total[block] = (a, total[block][1] + g if block in total else g)
        optimizer._found = []
    return total


def test_factors_against_the_exact_expectation():
    """E over labels of sum_t g g^T and mean_t a a^T, from a loop by hand and by counting out all labels.

    The loss is a mean over B labels, so `sampled` is sqrt(B) times a mean; each label's part is fed with the root of
    its probability.
    """
    torch.set_default_dtype(torch.float64)
    try:
        net, x = Net(), torch.randn(6, 5, 2)
        optimizer = KFAC(net.parameters())
        optimizer.watch(net)
        p = net(x).softmax(-1).detach()
        (lstm_a, lstm_g), (head_a, head_g) = look(optimizer, net, x, p.sqrt() / 6**0.5).values()

        state = (torch.zeros(1, 6, 3), torch.zeros(1, 6, 3))
        (inputs,), (gates,), out, *_ = by_hand(net.lstm, x.transpose(0, 1), state)
        rows = torch.cat(inputs)
        torch.testing.assert_close(lstm_a, rows.T @ rows / 30, atol=1e-10, rtol=1e-10)
        last = torch.cat((out[-1], torch.ones(6, 1)), dim=1).detach()
        torch.testing.assert_close(head_a, last.T @ last / 6, atol=1e-10, rtol=1e-10)
        logits = net.head(out[-1])
        exact = torch.zeros(12, 12)
        for case in range(6):
            for label in range(4):
                slope = torch.autograd.grad(-logits.log_softmax(-1)[case, label], gates, retain_graph=True)
                for g in slope:
                    exact += p[case, label] * torch.outer(g[case], g[case]) / 6
        torch.testing.assert_close(lstm_g, exact, atol=1e-10, rtol=1e-10)
        fisher = (torch.diag_embed(p) - p[:, :, None] * p[:, None]).mean(dim=0)
        torch.testing.assert_close(head_g, fisher, atol=1e-10, rtol=1e-10)
    finally:
        torch.set_default_dtype(torch.float32)


def test_drawn_labels_approach_the_expectation():
    """Over many labels that a task draws, the running mean of G for a linear layer nears the exact Hessian's factor."""
    head, x = nn.Linear(3, 4), torch.randn(2000, 1, 3)
    task = Classification(DataSpec("classification", 3, 4))
    optimizer = KFAC(head.parameters(), factor_every=1, lr=1e-9)
    optimizer.watch(head)
    batch = Batch(x, torch.randint(4, (2000,)))
    for _ in range(20):
        with optimizer.forward():
            out = head(x)[:, 0]

        def sampled(out=out):
            return task.loss(out, batch._replace(y=task.sample(out.detach(), batch))) * task.labels(batch) ** 0.5

        loss = task.loss(out, batch)
        optimizer.backward(loss, out, sampled, lambda: task.loss(head(x)[:, 0], batch))
        optimizer.step()
    p = head(x)[:, 0].softmax(-1).detach()
    exact = (torch.diag_embed(p) - p[:, :, None] * p[:, None]).mean(dim=0)
    torch.testing.assert_close(optimizer.state[head.weight]["G"], exact, atol=0.01, rtol=0)


TASKS = {
    Forecasting: ((30, 4, 1), torch.randn(30, 4, 1), None),
    Classification: ((90, 3), torch.randint(3, (90,)), None),
    LanguageModeling: ((6, 10, 3), torch.randint(3, (6, 10)), None),
    Tagging: ((6, 10, 3), torch.randint(3, (6, 10)), torch.tensor([10, 3, 5, 1, 10, 7])),
    Polyphonic: ((6, 10, 3), torch.randint(2, (6, 10, 3)).float(), torch.tensor([10, 3, 5, 1, 10, 7])),
}


@pytest.mark.parametrize("cls", TASKS)
def test_sampled_losses_have_the_fisher_information_as_covariance(cls):
    """Diagonal of E[grad grad^T] over drawn labels against that of the Hessian of the loss in the predictions."""
    shape, y, lengths = TASKS[cls]
    task = cls(DataSpec(cls.name, 3, 3))
    out, batch = torch.randn(shape, requires_grad=True), Batch(torch.zeros(*shape[:2], 3), y, lengths)
    count, squares = 3000, torch.zeros(shape)
    for _ in range(count):
        drawn = batch._replace(y=task.sample(out.detach(), batch))
        (gradient,) = torch.autograd.grad(task.loss(out, drawn) * task.labels(batch) ** 0.5, out)
        squares += gradient**2 / count
    exact = torch.func.hessian(lambda o: task.loss(o, batch))(out.detach())
    exact = exact.reshape(out.numel(), -1).diagonal().view(shape)
    assert float((squares - exact).norm() / exact.norm()) < 0.08
    assert float(squares.sum() / exact.sum()) == pytest.approx(1, abs=0.02)


def test_of_a_linear_layer_the_product_is_the_fisher_information():
    """For squared errors A x G is the Gauss-Newton matrix, in its scale too."""
    head, x, y = nn.Linear(3, 2), torch.randn(4000, 3), torch.randn(4000, 2)
    optimizer, exact = KFAC(head.parameters()), NaturalGradient(head.parameters())
    optimizer.watch(head)
    with optimizer.forward():
        out = head(x)
    loss = F.mse_loss(out, y)
    drawn = (out + 0.5**0.5 * torch.randn_like(out)).detach()
    optimizer.backward(loss, out, lambda: F.mse_loss(out, drawn) * y.numel() ** 0.5, lambda: loss)
    ((_, a, g),) = optimizer._found
    again = head(x)
    product = exact.curvature(F.mse_loss(again, y), again, ())
    dense = torch.stack([product(v) for v in torch.eye(8)])
    order = torch.tensor([0, 1, 2, 6, 3, 4, 5, 7])  # row by row [W, b], out of W and b one after the other
    found = torch.kron(g, a)
    assert float((found - dense[order][:, order]).norm() / dense.norm()) < 0.05


def test_a_module_used_at_every_step_counts_all_its_rows():
    """A linear layer called in a loop has the factors of one called on all steps at once."""

    class Steps(nn.Module):
        def __init__(self, loop):
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.loop = nn.Linear(3, 2), loop

        def forward(self, x):
            return torch.stack([self.layer(x_t) for x_t in x]) if self.loop else self.layer(x)

    x, y, found = torch.randn(4, 5, 3), torch.randn(4, 5, 2), []
    for loop in (True, False):
        net = Steps(loop)
        optimizer = KFAC(net.parameters())
        optimizer.watch(net)
        with optimizer.forward():
            out = net(x)
        loss = F.mse_loss(out, y)
        optimizer.backward(loss, out, lambda loss=loss: loss, lambda loss=loss: loss)
        found.append(optimizer._found[0][1:])
    torch.testing.assert_close(found[0], found[1])


def test_steps_beyond_the_end_do_not_count():
    """Of padded sequences the factors are those of the steps that the loss sees."""
    net, x = nn.LSTM(2, 3, batch_first=True), torch.randn(2, 6, 2)
    found = []
    for steps in (6, 4):
        optimizer = KFAC(net.parameters())
        optimizer.watch(net)
        with optimizer.forward():
            out = net(x[:, :steps])[0]
        loss = out[:, :4].square().mean()
        optimizer.backward(loss, out, lambda loss=loss: loss, lambda loss=loss: loss)
        found.append(optimizer._found[0][1:])
    torch.testing.assert_close(found[0], found[1])
