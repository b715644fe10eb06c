"""The check of conversions starts, and trains each of its networks for a step in each of the three ways."""

import pytest

from scripts.checks.conversion import NETWORKS, main


@pytest.mark.parametrize("name", NETWORKS)
def test_one_step(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([name, "--seeds", "0", "--steps", "1"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("1 steps of 32 images, seeds [0]")
    assert [line.startswith(name) for line in lines] == [True] * 3
    assert "nan" not in "".join(lines)


def test_an_unknown_network_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["VGG"])
    assert "no network is called 'VGG'" in capsys.readouterr().err
