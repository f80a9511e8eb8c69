"""The split proof in words: one line a check, for the terminal and the report."""

from __future__ import annotations

from ecd_deploy.split import SplitProof


def describe_proof(proof: SplitProof) -> tuple[tuple[str, str], ...]:
    """Name each check and say what was compared."""
    references, storage = proof.checks.references, proof.checks.storage
    dataflow, perturbation, copied = proof.checks.dataflow, proof.checks.perturbation, proof.checks.copied
    visited = (
        f"{references.objects_visited} objects reached from the student; among them none of the "
        f"{references.modules_sought} modules and {references.tensors_sought} tensors that stay behind"
    )
    memory = f"{storage.student_tensors} tensors of the student share no memory with {storage.auxiliary_tensors} others"
    graph = (
        f"{dataflow.nodes} autograd nodes lead from the logits to the student's {len(dataflow.reached)} parameters "
        f"and to none of {dataflow.auxiliary_parameters} others"
    )
    poisoned = (
        f"{perturbation.logits_compared} logits keep every bit with {perturbation.poisoned_tensors} tensors of the "
        "teacher side set to NaN"
    )
    return (
        ("references", visited),
        ("hooks", f"none on the student's {proof.checks.hooks.modules} modules"),
        ("storage", memory),
        ("dataflow", graph),
        ("perturbation", poisoned),
        ("copy", f"{copied.tensors_compared} tensors and {copied.logits_compared} logits equal the original's"),
    )
