"""The groups of the tiny model, and what a mistake has to look like."""

GROUPS = ("1x1", "2x4", "4x8")


def one_line_error(result):
    code, out, err = result
    assert code == 1
    assert out == ""
    assert err.startswith("Error: ")
    assert len(err.strip().splitlines()) == 1
    return err
