"""The loaded model behind the harness's interface; a call runs shared tokens only once."""

from __future__ import annotations

from array import array
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext
from operator import add
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from neurosurgery.evaluation.engine.broken import BrokenText, broken_logits
from neurosurgery.evaluation.engine.checks import AgreementChecks
from neurosurgery.evaluation.engine.generation import GREEDY, Generation, is_plain
from neurosurgery.evaluation.engine.greedy import NO_TOKEN, decode_greedily
from neurosurgery.evaluation.engine.options import OptionScores
from neurosurgery.evaluation.engine.passes import CachedPasses
from neurosurgery.models.vocabulary import check_known

TokenRequest = tuple["tuple[str, str] | None", list[int], list[int]]
"""The harness's request: context and continuation as text, or None; then the tokens of each."""

_ENCODINGS_KEPT = 1 << 16
"""Strings whose tokens are cached, because every edited model gets the same strings."""


class LanguageModel(HFLM):
    """HFLM with the same answers from fewer computed tokens.

    Within a call, options share one pass over their context, shared few-shot examples run once,
    logits are formed only where they are read, and finished rows leave their batch. Between calls
    only token ids are kept: the weights may have been edited. Other requests and models go to HFLM,
    a row at a time where padding would change the model's answers (`checks`).
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int
    ) -> None:
        # HFLM takes a decoder of Bart's kind for a model that translates, and rounds likelihoods to
        # the model's dtype.
        usual = {"backend": "causal", "softmax_dtype": "float32"}
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, **usual)
        self._passes = CachedPasses(self.model)
        self.checks = AgreementChecks(self._passes)
        self._encodings: OrderedDict[Hashable, array[int]] = OrderedDict()

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """HFLM's encoding, cached."""
        encode = super().tok_encode
        return self._remembered(
            (string, add_special_tokens, left_truncate_len),
            lambda: encode(string, add_special_tokens, left_truncate_len, **kwargs),
        )

    def tok_batch_encode(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """HFLM's encoding of padded prompts, checked."""
        ids, mask = super().tok_batch_encode(*args, **kwargs)
        check_known(self.model, self.tokenizer, ids.flatten().tolist())
        return ids, mask

    def _remembered(self, key: Hashable, encode: Callable[[], list[int]]) -> list[int]:
        """The result of `encode`, from a cache that drops the least recently used keys."""
        found = self._encodings.pop(key, None)
        if found is None:
            # A list takes ten times the memory.
            found = array("i", encode())
            check_known(self.model, self.tokenizer, found)
        self._encodings[key] = found
        if len(self._encodings) > _ENCODINGS_KEPT:
            self._encodings.popitem(last=False)
        return found.tolist()

    def _loglikelihood_tokens(
        self,
        requests: list[TokenRequest],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        longest = self.max_length  # HFLM recomputes this property at every access
        fit = all(context and 0 < len(ids) <= longest for _, context, ids in requests)
        if not requests or not fit or self.backend != "causal":
            # HFLM reports what is wrong with the requests.
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        # A long context loses its start. The 1: the last token is predicted but never run.
        contexts = [(context + ids)[-longest - 1 : -len(ids)] for _, context, ids in requests]
        options = [ids for _, _, ids in requests]
        tokens = max(map(len, map(add, contexts, options))) - 1
        in_parts = self.checks.in_parts(tokens, longest)
        if not self.checks.whole_rows(tokens, longest):
            with self._one_row_at_a_time():
                return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        batch_size = override_bs or self.batch_size
        answers = OptionScores(
            self._passes, contexts, options, batch_size, in_parts=in_parts
        ).answers()
        for (texts, _, _), answer in zip(requests, answers, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihoods of whole texts, in the harness's windows; each token is scored once."""
        windows: list[list[TokenRequest]] = []
        for request in requests:
            rolling = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            windows.append([(None, *make_disjoint_window(window)) for window in rolling])
        # One call for all texts: HFLM's own method batches short windows with long ones.
        answers = iter(self._loglikelihood_tokens([each for some in windows for each in some]))
        totals = [sum(next(answers)[0] for _ in some) for some in windows]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continue prompts until a stop string, an end token or the limit of new tokens.

        Returns:
            The texts; a `BrokenText` where the model had no finite logits for a next token.
        """
        groups: dict[str, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            groups[repr(request.args[1])].append(index)
        texts = [""] * len(requests)
        for members in groups.values():
            group = [requests[index] for index in members]
            found = self._generate_greedily(group)
            if found is None:
                padded = self._may_be_padded(group)
                alone = nullcontext() if padded else self._one_row_at_a_time()
                with alone, broken_logits(self.model) as seen:
                    found = super().generate_until(group, disable_tqdm)
                # HFLM's batches do not tell which of the prompts it was.
                found = [BrokenText(text) for text in found] if seen else found
            for index, text in zip(members, found, strict=True):
                texts[index] = text
        return texts

    def _generate_greedily(self, requests: list[Instance]) -> list[str] | None:
        """Answer requests that share their arguments; None where HFLM must answer."""
        arguments = requests[0].args[1]
        generation = self._greedy(arguments)
        if generation is None:
            return None
        until, new_tokens = generation
        room = self.max_length - new_tokens
        prompts = [self._prompt(request.args[0], room) for request in requests] if room > 0 else []
        longest = max(map(len, prompts), default=0)
        if not prompts or not all(prompts):
            return None
        if not self.checks.in_parts(longest + new_tokens, self.max_length):
            return None
        # HFLM searches as far back: two tokens more than the encoding of the longest stop string.
        tail = 2 + max(len(self.tokenizer.encode(stop, add_special_tokens=False)) for stop in until)

        def stopped(rows: list[list[int]]) -> list[bool]:
            tails = self.tokenizer.batch_decode([row[-tail:] for row in rows])
            return [any(stop in text for stop in until) for text in tails]

        ends = self.model.generation_config.eos_token_id
        answers = decode_greedily(
            self._passes,
            prompts,
            new_tokens,
            ends if isinstance(ends, list) else [ends],
            stopped,
            self.batch_size,
        )
        texts = [self._answer_text(ids, until) for ids in answers]
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def _may_be_padded(self, requests: list[Instance]) -> bool:
        """Whether HFLM may answer these requests in batches."""
        arguments = requests[0].args[1]
        if self.backend != "causal" or not isinstance(arguments, dict) or len(requests) == 1:
            # HFLM reports what is wrong with the arguments.
            return True
        longest = self.max_length
        new_tokens = normalize_gen_kwargs(arguments, self.max_gen_toks)["max_gen_toks"]
        tokens = max(len(self._prompt(request.args[0], longest)) for request in requests)
        return self.checks.generated_in_batches(min(tokens + new_tokens, longest), longest)

    @contextmanager
    def _one_row_at_a_time(self) -> Iterator[None]:
        """Have HFLM run every row alone, so that it pads none."""
        usual = self.batch_size
        self.batch_size_per_gpu = 1
        try:
            yield
        finally:
            self.batch_size_per_gpu = usual

    def _answer_text(self, ids: list[int], until: list[str]) -> str:
        if ids[-1:] == [NO_TOKEN]:
            return BrokenText(self.tok_decode(ids[:-1]))
        return postprocess_generated_text(self.tok_decode(ids), until, None)

    def _prompt(self, text: str, room: int) -> list[int]:
        """The last `room` tokens of a prompt."""

        def encode() -> list[int]:
            # HFLM has another rule for special tokens in prompts than in options.
            ids, _ = self.tok_batch_encode([text], truncation=self.truncation)
            return ids[0].tolist()

        return self._remembered(("prompt", text), encode)[-room:]

    def _greedy(self, arguments: Any) -> Generation | None:
        """Parse the arguments; None where they or the model need more than greedy decoding."""
        configured = self.model.generation_config
        if not isinstance(arguments, dict) or not is_plain(configured):
            return None
        if self.backend != "causal" or self.think_end_token is not None:
            return None
        rest = normalize_gen_kwargs(arguments, self.max_gen_toks)
        eos = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        until = handle_stop_sequences(rest.pop("until"), eos=eos)
        new_tokens = rest.pop("max_gen_toks")
        plain = all(GREEDY.get(name, ...) == value for name, value in rest.items())
        return Generation(until, new_tokens) if plain else None
