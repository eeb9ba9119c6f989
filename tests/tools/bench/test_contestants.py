from craft.engine import allocator
from tools.bench.contestants import KEPT, Contestant, field


def test_everybody_is_named_once():
    names = [one.name for one in field()]
    assert len(set(names)) == len(names)
    assert {"plain compiled bf16 +alloc", "craft step bf16 default", "jax_optax jit fp32"} <= set(names)


def test_the_field_can_be_narrowed():
    assert {one.peer for one in field(("plain",))} == {"plain"}
    assert len(field(quick=True)) < len(field())


def test_the_allocator_settings_are_those_of_craft(monkeypatch):
    asked = {}

    class Library:
        def mallopt(self, name, value):
            asked[name] = value
            return 1

    for name in ("GLIBC_TUNABLES", "MALLOC_ARENA_MAX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda _: Library())
    allocator.keep_memory()
    assert sorted(asked.values()) == sorted(int(part.partition("=")[2]) for part in KEPT.split(":"))


def test_a_memory_setting_is_part_of_the_name():
    assert Contestant("craft", "block", "bf16", memory="small").name == "craft block bf16 memory=small"
