"""Pictures of many samples: means and quartiles are the samples' own, and nothing is left out unsaid."""

import io

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PathCollection

from gatelens.explainers import Attribution
from gatelens.models import InvalidInputError
from gatelens.reports import global_plots, global_values
from gatelens.reports.palette import LIGHT
from helpers.made import made_attribution

VALUES = np.random.default_rng(0).normal(size=(9, 5, 3)) * [3.0, 0.1, 1.0]  # (B, T, D), the first feature the largest


def many(values=VALUES, *, lengths=None, inputs=None, tokens=None, target_output=None, **options) -> Attribution:
    """Return an Attribution of values (B, T, D), 0 from each sequence's length on."""
    parts = []
    for sample, cells in enumerate(values):
        length = len(cells) if lengths is None else lengths[sample]
        valid = np.arange(len(cells)) < length
        own = {} if tokens is None else {"token": tokens[sample], "features": ("token",)}
        if inputs is not None:
            own["inputs"] = inputs[sample]
        parts.append(made_attribution(cells * valid[:, None], length=length, **own, **options).dataset)
    dataset = xr.concat(parts, "sample", data_vars="all", combine_attrs="override")
    if target_output is not None:
        dataset["target_output"] = ("sample", target_output)
    return Attribution(dataset)


def points(axes) -> list[np.ndarray]:
    """Return the points (n, 2) of each row of a beeswarm."""
    return [np.asarray(part.get_offsets()) for part in axes.collections if isinstance(part, PathCollection)]


def names(axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def test_features_are_means_of_sizes_with_quartiles() -> None:
    """Bars are mean |sum over time| over samples, largest first; lines the quartiles of the sizes."""
    axes = global_plots.plot_global_features(many()).axes[0]
    sizes = np.abs(VALUES.sum(axis=1))  # (B, D)
    order = [0, 2, 1]
    assert names(axes) == [f"feature {column}" for column in order]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], sizes.mean(axis=0)[order])
    drawn = [part.get_segments()[0][:, 0] for part in axes.collections]
    np.testing.assert_allclose(drawn, np.quantile(sizes, (0.25, 0.75), axis=0).T[order])


def test_timesteps_are_means_of_sizes_with_quartiles() -> None:
    """The line is mean |sum over features|, the band its quartiles."""
    axes = global_plots.plot_global_timesteps(many()).axes[0]
    sizes = np.abs(VALUES.sum(axis=2))  # (B, T)
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), sizes.mean(axis=0))
    band = axes.collections[0].get_paths()[0].vertices
    for step in range(5):
        heights = band[band[:, 0] == step, 1]
        np.testing.assert_allclose([heights.min(), heights.max()], np.quantile(sizes[:, step], (0.25, 0.75)))
    assert "middle half of 9 samples" in axes.get_title(loc="left")


def test_sequences_of_different_lengths_stand_at_their_ends() -> None:
    """The last place is the mean of the last timesteps, the first one that of the sequences that reach so far back."""
    lengths = [5, 5, 2, 1, 3, 4, 5, 2, 1]
    axes = global_plots.plot_global_timesteps(many(lengths=lengths)).axes[0]
    sums = np.abs(VALUES.sum(axis=2))
    expected = [
        np.mean([sums[sample, length - back] for sample, length in enumerate(lengths) if length >= back])
        for back in range(5, 0, -1)
    ]
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), expected)
    assert [label.get_text() for label in axes.get_xticklabels()][-2:] == ["\N{MINUS SIGN}1", "last"]
    assert axes.get_xlabel() == "timesteps before the last of each sequence"
    timed = global_plots.plot_global_timesteps(many(lengths=lengths, interval=300.0)).axes[0]
    assert timed.get_xticklabels()[-1].get_text() == "now"


def test_points_are_the_effects_of_samples() -> None:
    """Each row holds every sample's effect once, near the row's middle, coloured by the feature's mean value."""
    inputs = np.random.default_rng(1).normal(size=VALUES.shape)
    lengths = [5, 5, 2, 1, 3, 4, 5, 2, 1]
    found = many(inputs=inputs * (np.arange(5) < np.array(lengths)[:, None])[..., None], lengths=lengths)
    axes = global_plots.plot_beeswarm(found).axes[0]
    rows = points(axes)
    for place, column in enumerate(int(name.split()[1]) for name in names(axes)):
        np.testing.assert_allclose(rows[place][:, 0], found.features[:, column])
        assert (np.abs(rows[place][:, 1] - place) <= 0.45).all()
        means = np.array([inputs[b, :length, column].mean() for b, length in enumerate(lengths)])
        low, high = np.quantile(means, (0.05, 0.95))
        colours = [part for part in axes.collections if isinstance(part, PathCollection)][place].get_array()
        np.testing.assert_allclose(colours, np.clip((means - low) / (high - low), 0, 1), atol=1e-12)


def test_equal_effects_do_not_hide_each_other() -> None:
    """Samples with the same effect stand side by side in their row."""
    row = points(global_plots.plot_beeswarm(many(np.ones((7, 2, 2)))).axes[0])[0]
    assert len({round(float(height), 9) for height in row[:, 1]}) == 7


def test_many_samples_are_thinned_and_told() -> None:
    """Of more samples than can be seen so many are drawn, always the same, and the title says how many."""
    values = np.random.default_rng(0).normal(size=(1000, 1, 2))
    found = many(values[:1])
    dataset = xr.concat([found.dataset] * 1000, "sample", data_vars="all", combine_attrs="override")
    found = Attribution(dataset.assign(attribution=(("sample", "time", "feature"), values)))
    figures = [global_plots.plot_beeswarm(found) for _ in range(2)]
    rows = [points(figure.axes[0])[0] for figure in figures]
    assert len(rows[0]) == global_plots.MOST_POINTS
    np.testing.assert_array_equal(*rows)
    assert "400 of 1,000 drawn" in figures[0].axes[0].get_title(loc="left").replace("\n", " ")


def test_features_left_out_are_counted() -> None:
    """Of 300 features the largest are drawn, and the others counted."""
    found = many(np.random.default_rng(0).normal(size=(4, 2, 300)))
    for draw in (global_plots.plot_global_features, global_plots.plot_beeswarm):
        axes = draw(found).axes[0]
        assert len(names(axes)) == global_values.MOST_ROWS
        assert "285 other features not drawn" in axes.get_title(loc="left").replace("\n", " ")


def test_tokens_are_counted_by_text() -> None:
    """Of text a token's effect in a sample is the sum of all its places; its mean size counts every sample."""
    words = [["not", "good", "not"], ["good", "film", "good"], ["not", "film", "<pad>"]]
    values = np.array([[1.0, 2.0, 0.5], [-4.0, 0.25, 1.0], [-1.0, 0.5, 9.0]])[..., None]
    found = many(values, lengths=[3, 3, 2], tokens=words)
    axes = global_plots.plot_global_features(found).axes[0]
    expected = {"good": (2.0 + 3.0) / 3, "not": (1.5 + 1.0) / 3, "film": (0.25 + 0.5) / 3}
    assert names(axes) == list(expected)
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], list(expected.values()))
    assert axes.get_title(loc="left").startswith("By token")
    rows = points(global_plots.plot_beeswarm(found).axes[0])
    np.testing.assert_allclose([sorted(row[:, 0]) for row in rows], [[-3.0, 2.0], [-1.0, 1.5], [0.25, 0.5]])


def test_the_summary_draws_what_is_told_apart() -> None:
    """Timesteps, features and samples where all are known; only what the method tells apart where not."""

    def panels(found, **options):
        figure = global_plots.plot_global_summary(found, **options)
        figure.savefig(io.BytesIO(), format="png", dpi=30)
        return [axes.get_title(loc="left").split(":")[0] for axes in figure.axes if axes.get_label() != "<colorbar>"]

    assert panels(many()) == ["By timestep", "By feature", "Each sample's contribution"]
    assert panels(many(resolution="timestep")) == ["By timestep"]
    assert panels(many(resolution="feature")) == ["By feature", "Each sample's contribution"]
    assert panels(many(VALUES[:, :1])) == ["By feature", "Each sample's contribution"]
    assert panels(many(VALUES[:, :, :1])) == ["By timestep"]
    assert panels(many(VALUES[:, :1, :1])) == ["By timestep"]
    assert panels(many(VALUES[:, :, :1], resolution="feature")) == ["By feature", "Each sample's contribution"]
    text = many(VALUES[:, :, :1], tokens=[list("abcde")] * 9)
    assert panels(text) == ["By timestep", "By token", "Each sample's contribution"]
    assert panels(many(VALUES[:1])) == ["By timestep", "By feature", "Each sample's contribution"]
    assert panels(many(0 * VALUES)) == ["By timestep", "By feature", "Each sample's contribution"]


def test_targets_that_differ_are_told() -> None:
    """Where each sample's own class was explained, its sign is about that class, and the picture says so."""
    title = global_plots.plot_beeswarm(many(target_output=[0, 1] * 4 + [0])).axes[0].get_title(loc="left")
    assert "of its own predicted output" in title.replace("\n", " ")
    assert "own predicted" not in global_plots.plot_beeswarm(many()).axes[0].get_title(loc="left")


def test_a_sensitivity_is_called_so() -> None:
    """What a method measures stands in the titles."""
    found = many(measures="sensitivity")
    assert "mean size of the sensitivity" in global_plots.plot_global_timesteps(found).axes[0].get_title(loc="left")


def test_the_value_key_is_there_where_values_are() -> None:
    """Text, and features that never change, have no key of values."""
    varied = many(inputs=np.random.default_rng(1).normal(size=VALUES.shape))
    assert [axes.get_title(loc="left") for axes in global_plots.plot_beeswarm(varied).axes][1:] == ["value"]
    assert len(global_plots.plot_beeswarm(many()).axes) == 1


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: global_plots.plot_global_timesteps(many(resolution="feature")), "draw plot_global_features"),
        (lambda: global_plots.plot_global_features(many(resolution="timestep")), "does not tell features apart"),
        (
            lambda: global_plots.plot_beeswarm(many(VALUES[:, :, :1], features=("token",))),
            "give the model a vocabulary",
        ),
        (
            lambda: global_plots.plot_global_summary(
                many(VALUES[:, :, :1], tokens=[list("abcde")] * 9, resolution="feature")
            ),
            "not told apart",
        ),
        (
            lambda: global_plots.plot_global_summary(Attribution(many().dataset.isel(sample=slice(0)))),
            "holds no sample",
        ),
    ],
)
def test_refusals(draw, message: str) -> None:
    """What cannot be drawn is refused with a sentence."""
    with pytest.raises(InvalidInputError, match=message):
        draw()


def test_the_caller_s_data_stay_as_they_are() -> None:
    """Drawing writes to nothing."""
    found = many()
    before = found.dataset.copy(deep=True)
    global_plots.plot_global_summary(found, theme=LIGHT)
    xr.testing.assert_identical(found.dataset, before)
