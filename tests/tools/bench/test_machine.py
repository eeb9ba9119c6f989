from tools.bench.machine import describe


def test_the_machine_the_versions_and_the_commit_are_named():
    facts = describe(2)
    assert facts["threads"] == "2"
    assert facts["torch"][0].isdigit()
    assert {"machine", "python", "commit", "jax"} <= set(facts)
