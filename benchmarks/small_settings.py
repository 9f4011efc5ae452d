"""Settings with which the personalised LLM is trained and asked in seconds: everything runs, nothing is learned."""

PERSONALISED: dict[str, dict[str, object]] = {
    "insight_tasks": {"per_user": 3},
    "base_decoder": {"vocabulary": 600, "hidden": 64, "layers": 2, "intermediate": 128, "length": 48, "steps": 6},
    "supervised_decoder": {"steps": 4, "batch_tasks": 4},
    "personalised_decoder": {"steps": 2, "batch_tasks": 4, "batch_questions": 2, "samples": 2},
    "personalization_scores": {"max_tasks": 8, "recent_tokens": 32, "stuffed_tokens": 128, "stuffed_tasks": 4},
    "efficiency_scores": {"repeats": 1, "new_tokens": 2},
    "reasoning_bias_scores": {"users": 6, "questions": 3, "adapter_users": 2, "steps": 2},
    "judge_agreement_scores": {"max_pairs": 6},
}
