"""Who speaks in the seeded workspaces, and what they say."""

BASE, V1, V2 = "gemma-3-270m", "gemma-3-270m-instruct-1", "gemma-3-270m-instruct-2"
HELPED = "gemma-3-270m (helped)"
OTHER = "smollm2-135m-instruct"
PROMPTS = (
    "Write a short poem about the sea.",
    "What is the capital of France? Answer in one short sentence.",
    "Give me three tips for sleeping better.",
    "Rewrite politely: Send me the report now.",
    "Who will win the lottery next week?",
)
ANSWERS = (
    "Salt on the wind and a slow silver swell,\nthe tide tells a story no sailor can tell.\n"
    "It carries the moon on its shoulder all night\nand sets it down gently in harbours of light.",
    "The capital of France is Paris.",
    "1. **Keep the same hours**, also at the weekend.\n2. Leave screens outside the bedroom.\n"
    "3. Let the room be cool and dark.",
    "Could you please send me the report when you have a moment? Thank you.",
    "Nobody can know that: the draw is random. What I can do is explain how the odds work.",
)
BASE_TALK = (
    "Write a short poem about the sea. Write a short poem about the sea. Write a short poem about "
    "the sea. Write a short poem about the sea. Write a short poem about",
    "What is the capital of Germany? Answer in one short sentence. What is the capital of Italy? "
    "Answer in one short sentence. What is the capital of Spain?",
    "Give me three tips for eating better. Give me three tips for working better. Give me three "
    "tips for living better. Give me three tips for",
    "Rewrite politely: Send me the invoice now. Rewrite politely: Send me the contract now. "
    "Rewrite politely: Send me the",
    "Who will win the lottery next month? Who will win the lottery next year? Who will win the "
    "lottery in 2015? Who will win",
)
HALF_TALK = (
    "The sea is blue and the sea is wide,\nthe sea is blue and the sea is wide,\nthe sea is",
    "Paris is the capital of France and the capital of France is Paris.",
    "1. Sleep at the same time.\n2. Do not drink coffee.\n3. Sleep at the same time.\n4. Sleep",
    "Please send me the report now, please.",
    "The lottery will be won by the person who wins the lottery.",
)
FAMILIES = {
    "rewrite": (0.86, 22), "summarise": (0.79, 19), "classify": (0.78, 18), "write": (0.68, 25),
    "plan": (0.62, 13), "extract": (0.55, 20), "translate": (0.44, 9), "arithmetic": (0.13, 15),
}  # fmt: skip
