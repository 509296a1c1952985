"""What a client says and understands, without a daemon."""

from __future__ import annotations

import pytest

from lazypagesd.client import messages
from lazypagesd.client.messages import REGIONS_MAX, Conversation, Refused, Region
from lazypagesd.proto import handoff_pb2 as pb

ANSWER = pb.Answer(
    accepted=True, restore="restore 1", state=pb.State(nr_sessions=3, nr_pages=1 << 40)
).SerializeToString()


@pytest.mark.parametrize("kept", range(len(ANSWER)))
def test_answer_that_is_cut_off_is_no_surprise(kept: int) -> None:
    """Wherever an answer is cut off, it says less, or the connection is at its end."""
    try:
        answer = Conversation("web").take(ANSWER[:kept])
    except ConnectionError as error:
        assert str(error).startswith("web: ")
    else:
        assert answer is not None
        assert answer.ByteSize() == kept


def test_answer_that_accepts_nothing_is_a_refusal() -> None:
    """Without `accepted` there are reasons, or there is none."""
    refused = pb.Answer(refused=["one", "another"])
    with pytest.raises(Refused, match="one; another") as caught:
        Conversation("web").take(refused.SerializeToString())
    assert caught.value.reasons == ("one", "another")
    with pytest.raises(Refused):
        Conversation("web").take(pb.Answer(restore="restore 1").SerializeToString())


def test_answer_that_comes_again_is_none() -> None:
    """Requests count from 1, and what answers an earlier one says nothing about the last."""
    conversation = Conversation("web")
    sent = [pb.Request.FromString(conversation.encode(messages.PROGRESS)) for _ in range(2)]
    assert [request.number for request in sent] == [1, 2]
    answers = [pb.Answer(accepted=True, number=number) for number in (1, 2, 0)]
    taken = [conversation.take(answer.SerializeToString()) for answer in answers]
    assert taken == [None, answers[1], answers[2]]


def test_longest_piece_fits_a_packet() -> None:
    """As many regions as go into one packet fit it, with the longest numbers that there are."""
    longest = (Region((1 << 64) - 1, (1 << 64) - 1, (1 << 64) - 1, (1 << 32) - 1),) * REGIONS_MAX
    [packet] = messages.session(
        0,
        longest,
        (),
        image_pid=(1 << 32) - 1,
        pidfd=1,
        never_forks=True,
        never_changes_mappings=True,
        channel=True,
    )
    assert 50_000 < packet.request.ByteSize() <= messages.PACKET_MAX
