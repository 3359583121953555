"""Storage types, by hand, by law, and against torch's own conversions."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from metaembed.storage import (
    CODES,
    LARGEST_CODE,
    STORAGE_TYPES,
    Stored,
    code_length,
    decode,
    encode,
    has_scales,
    num_bytes,
    round_queries,
)

LARGEST = np.finfo(np.float32).max


def one(*numbers):
    return np.array([[numbers]], np.float32)


def vectors(low=-1e4, high=1e4):
    shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9))
    numbers = st.floats(low, high, width=32)
    return shapes.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=numbers))


def test_float32_keeps_numbers_as_they_are():
    stored = encode(one(1.5, -0.1), "float32")
    assert (stored.dtype, stored.dim, stored.codes.dtype, stored.scales) == (
        "float32",
        2,
        np.float32,
        None,
    )
    assert stored.codes.tolist() == [[[1.5, np.float32(-0.1)]]]


def test_float16_keeps_eleven_bits():
    # A third is 0.0101...b: 11 bits of it are 1365 / 4096.
    assert decode(encode(one(1 / 3, 65504), "float16")).tolist() == [[[1365 / 4096, 65504]]]
    assert np.isinf(decode(encode(one(65520), "float16"))).all()


def test_bfloat16_keeps_eight_bits_and_breaks_ties_to_even():
    # Between 1 and 2 numbers lie 1/128 apart.
    numbers = one(1 + 1 / 256, 1 + 3 / 256, 1 + 5 / 1024, -1 - 1 / 256)
    stored = encode(numbers, "bfloat16")
    assert decode(stored).tolist() == [[[1, 1 + 2 / 128, 1 + 1 / 128, -1]]]
    assert stored.codes.tolist() == [[[0x3F80, 0x3F82, 0x3F81, 0xBF80]]]


def test_int8_takes_the_largest_number_to_127():
    stored = encode(one(254, 127, -254, 1, 3, 0), "int8")
    assert stored.scales.tolist() == [[2.0]]
    # In steps of 2: 127, 63.5 (to even), -127, 0.5 and 1.5 (to even), 0; plus 128.
    assert stored.codes.tolist() == [[[255, 192, 1, 128, 130, 128]]]
    assert decode(stored).tolist() == [[[254, 128, -254, 0, 4, 0]]]


def test_int4_puts_two_numbers_into_a_byte():
    stored = encode(one(7, 3.5, -7, 0.4, 2.5), "int4")
    assert stored.scales.tolist() == [[1.0]]
    # 7, 4, -7, 0, 2 plus 8, the first in the low half; the last byte is filled up with a 0.
    assert stored.codes.tolist() == [[[15 + 12 * 16, 1 + 8 * 16, 10 + 8 * 16]]]
    assert decode(stored).tolist() == [[[7, 4, -7, 0, 2]]]


def test_binary_keeps_signs_from_the_lowest_bit():
    stored = encode(one(1, -1, 0, -0.0, -5, -5, -5, 0.1, 3, -3), "binary")
    assert stored.codes.tolist() == [[[0b10001101, 0b01]]]
    assert decode(stored).tolist() == [[[1, -1, 1, 1, -1, -1, -1, 1, 1, -1]]]


@pytest.mark.parametrize(
    ("dtype", "dim", "expected"),
    [
        ("float32", 128, 512),
        ("float16", 128, 256),
        ("bfloat16", 128, 256),
        ("int8", 128, 132),
        ("int4", 128, 68),
        ("int4", 3, 6),
        ("binary", 128, 16),
        ("binary", 9, 2),
    ],
)
def test_bytes_of_a_vector_are_those_of_its_arrays(dtype, dim, expected):
    assert num_bytes(dtype, dim) == expected
    stored = encode(np.ones((1, 1, dim), np.float32), dtype)
    scales = 0 if stored.scales is None else stored.scales.nbytes
    assert stored.codes.nbytes + scales == expected


@pytest.mark.parametrize("dtype", STORAGE_TYPES)
@pytest.mark.parametrize("dim", [1, 2, 7, 8, 9, 17])
def test_arrays_have_the_shapes_that_the_format_says(dtype, dim):
    stored = encode(np.ones((4, 3, dim), np.float32), dtype)
    assert stored.codes.shape == (4, 3, code_length(dtype, dim))
    assert stored.codes.dtype == CODES[dtype]
    assert stored.codes.flags.c_contiguous
    assert (stored.scales is not None) == has_scales(dtype)
    if stored.scales is not None:
        assert (stored.scales.shape, stored.scales.dtype) == ((4, 3), np.float32)
    assert decode(stored).shape == (4, 3, dim)
    assert decode(stored).dtype == np.float32


@pytest.mark.parametrize("dtype", STORAGE_TYPES)
@pytest.mark.parametrize("shape", [(0, 2, 5), (3, 0, 5)])
def test_no_vectors_are_vectors_too(dtype, shape):
    stored = encode(np.empty(shape, np.float32), dtype)
    assert decode(stored).shape == shape


@given(vectors())
def test_float32_loses_nothing(numbers):
    assert np.array_equal(decode(encode(numbers, "float32")), numbers)


@given(vectors(-65504, 65504))
def test_float16_is_what_torch_makes_of_it(numbers):
    expected = torch.from_numpy(numbers.copy()).half().float().numpy()
    assert np.array_equal(decode(encode(numbers, "float16")), expected)


@given(vectors(-(2.0**127), 2.0**127))
def test_bfloat16_is_what_torch_makes_of_it(numbers):
    expected = torch.from_numpy(numbers.copy()).bfloat16()
    stored = encode(numbers, "bfloat16")
    assert np.array_equal(decode(stored), expected.float().numpy())
    assert np.array_equal(stored.codes.view(np.int16), expected.view(torch.int16).numpy())


@given(vectors(-(2.0**127), 2.0**127))
def test_half_precision_is_off_by_half_a_step_at_most(numbers):
    wide = numbers.astype(np.float64)
    error = np.abs(decode(encode(numbers, "bfloat16")) - wide)
    assert (error <= np.maximum(np.abs(wide) * 2.0**-8, 2.0**-134)).all()
    assume(np.abs(numbers).max(initial=0) < 65504)
    error = np.abs(decode(encode(numbers, "float16")) - wide)
    assert (error <= np.maximum(np.abs(wide) * 2.0**-11, 2.0**-25)).all()


@settings(max_examples=200)
@given(vectors(-(2.0**126), 2.0**126), st.sampled_from(["int8", "int4"]))
def test_a_quantised_number_is_off_by_half_a_scale_at_most(numbers, dtype):
    stored = encode(numbers, dtype)
    assert np.isfinite(decode(stored)).all()
    error = np.abs(decode(stored) - numbers.astype(np.float64))
    # A scale is itself rounded, which matters where it is denormal and has few bits.
    bound = np.maximum(stored.scales * (0.5 + 2.0**-15), LARGEST_CODE[dtype] * 2.0**-149)
    assert (error <= bound[..., None]).all()


@given(vectors(-(2.0**126), 2.0**126), st.sampled_from(["int8", "int4"]))
def test_a_quantised_vector_keeps_its_peak_and_no_code_is_out_of_range(numbers, dtype):
    largest = LARGEST_CODE[dtype]
    stored = encode(numbers, dtype)
    peaks = np.abs(numbers).max(axis=-1)
    assert np.allclose(np.abs(decode(stored)).max(axis=-1), peaks, rtol=1e-6, atol=largest * 1e-45)
    if dtype == "int8":
        assert stored.codes.min(initial=1) >= 1
    else:
        assert (stored.codes & 15).min(initial=1) >= 1
        assert (stored.codes >> 4).min(initial=1) >= 1


@given(
    arrays.arrays(np.int8, (2, 3, 7), elements=st.integers(-127, 127)),
    st.integers(-100, 100),
    st.sampled_from(["int8", "int4"]),
)
def test_multiples_of_a_scale_come_back_exactly(whole, exponent, dtype):
    largest = LARGEST_CODE[dtype]
    whole = np.clip(whole, -largest, largest)
    whole[..., 3] = largest
    numbers = np.ldexp(whole.astype(np.float32), exponent)
    stored = encode(numbers, dtype)
    assert np.array_equal(stored.scales, np.full((2, 3), 2.0**exponent, np.float32))
    assert np.array_equal(decode(stored), numbers)


@given(vectors(), st.sampled_from(STORAGE_TYPES))
def test_what_was_stored_is_stored_alike_again(numbers, dtype):
    stored = encode(numbers, dtype)
    again = encode(decode(stored), dtype)
    assert np.array_equal(stored.codes, again.codes)
    if stored.scales is not None:
        assert np.allclose(stored.scales, again.scales, rtol=2.0**-22, atol=0)


@given(vectors(), st.sampled_from(STORAGE_TYPES[:-1]))
def test_a_sign_is_kept(numbers, dtype):
    assert np.array_equal(decode(encode(-numbers, dtype)), -decode(encode(numbers, dtype)))


@given(vectors(), st.sampled_from(STORAGE_TYPES))
def test_a_vector_is_stored_alike_whatever_lies_beside_it(numbers, dtype):
    together = encode(numbers, dtype)
    for row in range(numbers.shape[0]):
        for column in range(numbers.shape[1]):
            alone = encode(numbers[row : row + 1, column : column + 1], dtype)
            assert np.array_equal(alone.codes[0, 0], together.codes[row, column])
            if alone.scales is not None:
                assert alone.scales[0, 0] == together.scales[row, column]


@pytest.mark.parametrize("dtype", STORAGE_TYPES[:-1])
def test_zeros_stay_zeros(dtype):
    for zero in (0.0, -0.0):
        stored = encode(np.full((2, 1, 5), zero, np.float32), dtype)
        assert not decode(stored).any()
        if stored.scales is not None:
            assert not stored.scales.any()


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_vector_too_small_for_a_scale_is_stored_as_zeros(dtype):
    smallest = np.float32(2.0**-149)
    stored = encode(one(smallest, -smallest, 0), dtype)
    assert (decode(stored).any(), stored.scales.any()) == (False, False)
    # The smallest scale there is: whole multiples of it survive.
    largest = LARGEST_CODE[dtype]
    numbers = one(*(np.arange(1, largest + 1) * smallest))
    assert np.array_equal(decode(encode(numbers, dtype)), numbers)


def test_denormals_survive_in_float32_and_bfloat16():
    assert decode(encode(one(2.0**-149), "float32"))[0, 0, 0] == 2.0**-149
    assert decode(encode(one(2.0**-133, 2.0**-149), "bfloat16")).tolist() == [[[2.0**-133, 0]]]


@pytest.mark.parametrize("dtype", ["float32", "int8", "int4"])
def test_the_largest_numbers_stay_close(dtype):
    with np.errstate(over="ignore"):
        back = decode(encode(one(LARGEST / 2, -LARGEST / 2, 0), dtype))
    assert np.allclose(back, one(LARGEST / 2, -LARGEST / 2, 0), rtol=1e-6)


@pytest.mark.parametrize("dtype", STORAGE_TYPES)
def test_any_layout_of_the_input_is_read(dtype):
    numbers = np.random.default_rng(0).standard_normal((4, 6, 10)).astype(np.float32)
    views = [numbers[::2, 1:4, ::3], np.asfortranarray(numbers), numbers.astype(">f4")]
    for view in views:
        plain = encode(np.array(view, np.float32, order="C"), dtype)
        stored = encode(view, dtype)
        assert np.array_equal(stored.codes, plain.codes)
    numbers.flags.writeable = False
    assert encode(numbers, dtype).codes.shape[:2] == (4, 6)


def test_the_filler_of_an_odd_int4_vector_is_never_read():
    stored = encode(one(1, 2, 3), "int4")
    other = stored._replace(codes=stored.codes | np.array([0, 0xF0], np.uint8))
    assert not np.array_equal(other.codes, stored.codes)
    assert np.array_equal(decode(other), decode(stored))


def test_the_filler_of_binary_is_never_read():
    stored = encode(one(1, -1, 1), "binary")
    other = Stored("binary", 3, stored.codes | np.uint8(0xF8), None)
    assert np.array_equal(decode(other), decode(stored))


@given(vectors())
def test_queries_are_rounded_as_their_candidates_are_scored(numbers):
    for dtype in ("float32", "float16"):
        assert np.array_equal(round_queries(numbers, dtype), numbers)
    assert np.array_equal(round_queries(numbers, "bfloat16"), decode(encode(numbers, "bfloat16")))
    for dtype in ("int8", "int4", "binary"):
        assert np.array_equal(round_queries(numbers, dtype), decode(encode(numbers, "int8")))


@settings(max_examples=50)
@given(st.data())
def test_a_product_of_quantised_vectors_is_whole_numbers_times_two_scales(data):
    """What makes exact integer arithmetic give the defined score."""
    dim = data.draw(st.integers(1, 64))
    pair = data.draw(arrays.arrays(np.float32, (2, 1, dim), elements=st.floats(-1, 1, width=32)))
    dtype = data.draw(st.sampled_from(["int8", "int4"]))
    query, candidate = encode(pair[:1], "int8"), encode(pair[1:], dtype)
    whole = [
        np.rint(decode(one_side) / np.where(one_side.scales > 0, one_side.scales, 1)[..., None])
        for one_side in (query, candidate)
    ]
    exact = (
        float((whole[0] * whole[1]).sum())
        * float(query.scales[0, 0])
        * float(candidate.scales[0, 0])
    )
    product = float((decode(query).astype(np.float64) * decode(candidate)).sum())
    assert product == pytest.approx(exact, rel=1e-4, abs=1e-6)
