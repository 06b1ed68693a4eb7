"""Every check of the contract fails on an explainer broken in its way, and no other check does."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from gatelens.explainers import Contribution, Explainer, IntegratedGradients, Problem, get
from gatelens.explainers.checks import CHECKS, ContractError, check_explainer
from gatelens.models import GatelensError, InvalidInputError


class Sound(IntegratedGradients):
    """What the broken ones are made from; it keeps the contract."""

    name = "sound"
    summary = "integrated gradients with fixed steps"

    def __init__(self, model, **options) -> None:
        super().__init__(model, **{"steps": 48, **options})


class Rewritten(Sound):
    """Does something to the values (B, T, D) of features; those of tokens stay."""

    def rewrite(self, values: torch.Tensor, problem: Problem) -> torch.Tensor:
        """Return the values that are given out."""
        raise NotImplementedError

    def _attribute(self, problem) -> Contribution:
        contribution = super()._attribute(problem)
        if problem.reads_tokens:
            return contribution
        return replace(contribution, values=self.rewrite(contribution.values, problem))


class ScaledAttributions(Sound):
    """Attributions are 10 % too large."""

    def _attribute(self, problem) -> Contribution:
        contribution = super()._attribute(problem)
        return replace(contribution, values=contribution.values * 1.1)


class ScaledExact(get("kernel_shap")):
    """An exact method misses by 0.1 %."""

    def _solve(self, game):
        values, numbers = super()._solve(game)
        return values * 1.001, numbers


class CreditsDummyFeature(Rewritten):
    """The last feature gets some of the others' credit."""

    def rewrite(self, values, problem):
        moved = 0.1 * values[..., :-1]
        return torch.cat([values[..., :-1] - moved, values[..., -1:] + moved.sum(dim=2, keepdim=True)], dim=2)


class CreditsLaterTimesteps(Rewritten):
    """Some of a feature's credit is shared by all its timesteps, whatever was explained."""

    def rewrite(self, values, problem):
        present = (problem.inputs != problem.baseline).to(values)  # nowhere in padding
        shares = present / present.sum(dim=1, keepdim=True).clamp(min=1)
        return 0.7 * values + 0.3 * values.sum(dim=1, keepdim=True) * shares


class CreditsTheAbsent(Rewritten):
    """Cells that hold the baseline's value share some of the credit."""

    def rewrite(self, values, problem):
        valid = torch.arange(values.shape[1]) < problem.lengths[:, None]
        absent = ((problem.inputs == problem.baseline) & valid[..., None]).to(values)
        count = absent.sum(dim=(1, 2), keepdim=True)
        moved = torch.where(count > 0, 0.2 * values, 0)
        return values - moved + absent / count.clamp(min=1) * moved.sum(dim=(1, 2), keepdim=True)


class CreditsTheIdle(get("occlusion")):
    """One kind of player gets credit where it changes nothing: of those that are absent, or of the others."""

    kind = ""
    absent = False

    def _solve(self, game):
        values, numbers = super()._solve(game)
        largest = np.abs(values).max()
        if self.players == self.kind:
            labels, changed = game.players.labels.ravel(), game.changed.ravel()
            absent = np.bincount(labels, weights=changed, minlength=len(values)) == 0
            values[(np.abs(values) <= 1e-5 * largest) & (absent == self.absent)] = 0.3 * largest
        return values, numbers


class FavoursTheFirst(get("occlusion")):
    """Of one kind of player the first gets more than it is due."""

    kind = ""

    def _solve(self, game):
        values, numbers = super()._solve(game)
        if self.players == self.kind:
            values[0] *= 1.5
        return values, numbers


KINDS = ("timestep", "segment", "feature", "cell")
UNFAIR_TO_A_KIND = [
    *(("dummy_player", type(f"CreditsIdle{kind.title()}", (CreditsTheIdle,), {"kind": kind})) for kind in KINDS),
    *(
        ("missingness", type(f"CreditsAbsent{kind.title()}", (CreditsTheIdle,), {"kind": kind, "absent": True}))
        for kind in KINDS
    ),
    *(("symmetry", type(f"FavoursTheFirst{kind.title()}", (FavoursTheFirst,), {"kind": kind})) for kind in KINDS),
]


class FavoursAFeature(Rewritten):
    """The first feature takes some of the second one's credit."""

    def rewrite(self, values, problem):
        moved = 0.1 * values[..., 1]
        return torch.stack([values[..., 0] + moved, values[..., 1] - moved, *values[..., 2:].unbind(dim=2)], dim=2)


class FavoursTheBeginning(Rewritten):
    """The first timestep takes some of the second one's credit."""

    def rewrite(self, values, problem):
        moved = 0.1 * values[:, 1]
        return torch.stack([values[:, 0] + moved, values[:, 1] - moved, *values[:, 2:].unbind(dim=1)], dim=1)


class Normalised(Rewritten):
    """The sizes of a sample's attributions add up to 1."""

    completeness = "none"

    def rewrite(self, values, problem):
        return values / values.abs().sum(dim=(1, 2), keepdim=True)


class Squared(Rewritten):
    """Attributions are squared, their signs kept."""

    completeness = "none"

    def rewrite(self, values, problem):
        return values * values.abs()


class CountsPadding(Rewritten):
    """The amount of padding is an influence (a mean over T where one over the lengths is meant)."""

    def rewrite(self, values, problem):
        return values * (1 + 0.001 * (values.shape[1] - problem.lengths))[:, None, None]


class CreditsPadding(Sound):
    """Padding gets attributions."""

    def _checked_values(self, contribution, problem):
        values = super()._checked_values(contribution, problem)
        padding = torch.arange(problem.inputs.shape[1]) >= problem.lengths[:, None]
        if values.shape[2] > 1:
            values[padding.numpy()] += np.float32(1e-6)
        return values


class ReadsPadding(Sound):
    """What stands in the padding is an influence."""

    def explain(self, inputs, *, lengths=None, **rest):
        result = super().explain(inputs, lengths=lengths, **rest)
        if lengths is not None and result.values.shape[2] > 1:
            padding = torch.arange(inputs.shape[1]) >= lengths[:, None]
            garbage = 1e-3 * np.abs(np.nan_to_num(inputs.numpy()[padding.numpy()])).max(initial=0)
            if garbage > 100:
                result.dataset["attribution"][:, 0, 0] += 0.1
        return result


class MixesTheBatch(Rewritten):
    """The sum of the batch is an influence."""

    def rewrite(self, values, problem):
        return values * (1 + 0.01 * problem.inputs.sum().sin())


class ForgetsTheOrder(Sound):
    """Samples are sorted by length, and not sorted back."""

    def _attribute(self, problem) -> Contribution:
        contribution = super()._attribute(problem)
        order = problem.lengths.argsort(descending=True, stable=True)
        return replace(contribution, values=contribution.values[order])


class UnseededNoise(Sound):
    """Something random ignores the seed."""

    def _attribute(self, problem) -> Contribution:
        contribution = super()._attribute(problem)
        noise = np.random.default_rng().uniform(0.5, 1.0) * 2e-6
        return replace(contribution, values=contribution.values.double() * (1 + noise))


class RemembersCalls(Sound):
    """A generator goes on from one call to the next."""

    def __init__(self, model, **options) -> None:
        super().__init__(model, **options)
        self._generator = np.random.default_rng(self.seed)

    def _attribute(self, problem) -> Contribution:
        contribution = super()._attribute(problem)
        return replace(contribution, values=contribution.values.double() * (1 + self._generator.uniform() * 2e-6))


class AcceptsNaN(Sound):
    """NaN is taken for 0."""

    def explain(self, inputs, **rest):
        if inputs.is_floating_point():
            inputs = torch.nan_to_num(inputs, posinf=0.0)
        return super().explain(inputs, **rest)


class RefusesNaNUnclearly(Sound):
    """NaN ends in an error that says nothing about inputs."""

    def explain(self, inputs, **rest):
        try:
            return super().explain(inputs, **rest)
        except InvalidInputError as error:
            if "NaN" in str(error):
                raise ZeroDivisionError from None
            raise


class SavesWhatCannotBeSaved(Sound):
    """The result holds something that netCDF has no type for."""

    def explain(self, inputs, **rest):
        result = super().explain(inputs, **rest)
        result.dataset.attrs["nested"] = {"a": 1}
        return result


class SavesWhatChanges(Sound):
    """The result holds something that comes back from a file as something else."""

    def explain(self, inputs, **rest):
        result = super().explain(inputs, **rest)
        result.dataset.attrs["flags"] = (True, False)
        return result


class OneTargetForAll(Sound):
    """Every sample is explained for the first one's target."""

    def _attribute(self, problem) -> Contribution:
        target = replace(problem.target, output=problem.target.output[:1].expand(len(problem.lengths)))
        if problem.predictor.task == "multiclass":
            problem = replace(problem, target=target)
        return super()._attribute(problem)


class IgnoresTimestep(Sound):
    """A per-timestep target is explained at another timestep."""

    def explain(self, inputs, *, target=None, **rest):
        if isinstance(target, tuple) and target[0] == 0:
            target = (-1, target[1])
        return super().explain(inputs, target=target, **rest)


class NoTargets(Sound):
    """Only numbers are taken for targets."""

    def explain(self, inputs, *, target=None, **rest):
        if isinstance(target, torch.Tensor):
            raise TypeError("unhashable")
        return super().explain(inputs, target=target, **rest)


class EmbeddingShapes(Sound):
    """Of tokens it returns an attribution for each part of the embedding."""

    def _attribute(self, problem) -> Contribution:
        contribution = super()._attribute(problem)
        if problem.reads_tokens:
            return replace(contribution, values=contribution.values.expand(-1, -1, 4))
        return contribution


class BlindToTokens(Sound):
    """Tokens get 0."""

    def _attribute(self, problem) -> Contribution:
        contribution = super()._attribute(problem)
        return replace(contribution, values=contribution.values * (not problem.reads_tokens))


class NoAttribution(Sound):
    """The result is a bare tuple, where it says anything (and an Attribution where other checks read it)."""

    def explain(self, inputs, *, sample_names=None, **rest):
        result = super().explain(inputs, sample_names=sample_names, **rest)
        return (result.values, result.prediction) if sample_names == ("first", "second", "third") else result


class ForgetsNames(Sound):
    """The samples' names are lost."""

    def explain(self, inputs, *, sample_names=None, **rest):
        return super().explain(inputs, **rest)


class WrongMethodName(Sound):
    """The result says that another method made it."""

    def explain(self, inputs, **rest):
        result = super().explain(inputs, **rest)
        result.dataset.attrs["method"] = "integrated_gradients"
        return result


class Careless(Sound):
    """Does something to the model, or to the process, that it does not undo."""

    def damage(self, module) -> None:
        raise NotImplementedError

    def explain(self, inputs, **rest):
        result = super().explain(inputs, **rest)
        self.damage(self.predictor.module)
        return result


class LeavesEvalMode(Careless):
    def damage(self, module):
        module.eval()


class LeavesAllInTrainMode(Careless):
    def damage(self, module):
        module.train()


class LeavesParametersFrozen(Careless):
    def damage(self, module):
        module.requires_grad_(requires_grad=False)


class LeavesParametersThawed(Careless):
    def damage(self, module):
        module.requires_grad_(requires_grad=True)


class LeavesGradients(Careless):
    def damage(self, module):
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)


class DropsGradients(Careless):
    def damage(self, module):
        module.zero_grad()


class NudgesAWeight(Careless):
    def damage(self, module):
        with torch.no_grad():
            module.head.bias.copy_(torch.nextafter(module.head.bias, torch.tensor(9.0)))


class LeavesAHook(Careless):
    def damage(self, module):
        module.lstm[0].register_forward_hook(lambda *_: None)


class DrawsFromNumpy(Careless):
    def damage(self, module):
        np.random.rand()  # noqa: NPY002


class DrawsFromTorch(Careless):
    def damage(self, module):
        torch.rand(1)


class DrawsFromPython(Careless):
    def damage(self, module):
        random.random()


class ForgetsAfterAnError(Sound):
    """All is put back, but not when the model raises."""

    def explain(self, inputs, **rest):
        try:
            return super().explain(inputs, **rest)
        except GatelensError as error:
            if "on purpose" in str(error):
                self.predictor.module.eval()
            raise


CARELESS = Careless.__subclasses__()
BROKEN = [
    ("completeness", ScaledAttributions),
    ("completeness", ScaledExact),
    ("dummy_player", CreditsDummyFeature),
    ("dummy_player", CreditsLaterTimesteps),
    ("missingness", CreditsTheAbsent),
    *UNFAIR_TO_A_KIND,
    ("symmetry", FavoursAFeature),
    ("symmetry", FavoursTheBeginning),
    ("linearity", Normalised),
    ("linearity", Squared),
    ("padding_invariance", CountsPadding),
    ("padding_invariance", CreditsPadding),
    ("padding_invariance", ReadsPadding),
    ("batch_equals_singles", MixesTheBatch),
    ("batch_permutation", ForgetsTheOrder),
    ("deterministic_by_seed", UnseededNoise),
    ("deterministic_by_seed", RemembersCalls),
    ("nan_refused", AcceptsNaN),
    ("nan_refused", RefusesNaNUnclearly),
    ("save_load_identity", SavesWhatCannotBeSaved),
    ("save_load_identity", SavesWhatChanges),
    ("accepts_targets", OneTargetForAll),
    ("accepts_targets", IgnoresTimestep),
    ("accepts_targets", NoTargets),
    ("accepts_tokens", EmbeddingShapes),
    ("accepts_tokens", BlindToTokens),
    ("shapes_and_names", NoAttribution),
    ("shapes_and_names", ForgetsNames),
    ("shapes_and_names", WrongMethodName),
    ("model_left_untouched", ForgetsAfterAnError),
    *(("model_left_untouched", broken) for broken in CARELESS),
]


def failures(explainer: type[Explainer]) -> dict[str, str]:
    """Return check -> message of the checks that an explainer fails."""
    found = {}
    for name, check in CHECKS.items():
        numpy_state, torch_state, python_state = np.random.get_state(), torch.get_rng_state(), random.getstate()  # noqa: NPY002
        try:
            check(explainer)
        except ContractError as error:
            found[name] = str(error)
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            torch.set_rng_state(torch_state)
            random.setstate(python_state)
    return found


def test_what_the_broken_are_made_from_is_sound():
    """The explainer that the broken ones are made from passes every check, so that each fails for its fault only."""
    assert failures(Sound) == {}


def test_every_check_is_seen_to_fail():
    """There is a broken explainer for each check."""
    assert {name for name, _ in BROKEN} == set(CHECKS)


@pytest.mark.parametrize(("check", "broken"), BROKEN, ids=[f"{check}-{broken.__name__}" for check, broken in BROKEN])
def test_a_broken_explainer_fails_exactly_its_check(check, broken):
    """A broken explainer fails the check of its fault, by a message that names the axiom, and no other check."""
    found = failures(broken)
    assert list(found) == [check]
    assert f"{broken.name} breaks {check.replace('_', ' ')!r}" in found[check]


def test_all_failures_are_told_at_once():
    """`check_explainer` names every broken axiom, not only the first."""

    class Twice(ScaledAttributions, ForgetsNames):
        pass

    with pytest.raises(ContractError) as caught:
        check_explainer(Twice)
    assert len(str(caught.value).splitlines()) == 2
    assert "completeness" in str(caught.value)
    assert "shapes and names" in str(caught.value)
    assert isinstance(caught.value, AssertionError)
    assert isinstance(caught.value, GatelensError)


def test_the_gap_is_told_in_numbers():
    """The message of a completeness failure holds the gap and what was allowed."""
    with pytest.raises(ContractError, match=r"misses it by \[.*'converges' allows \["):
        CHECKS["completeness"](ScaledAttributions)
