import torch

from stg_tune.embedded.open_sora_train import SCHEDULER, TRANSFORMER, Trained, uncompiled
from stg_tune.embedded.text import build_encoder, build_tokenizer
from stg_tune.models.open_sora.schedule import OpenSoraScheduler
from stg_tune.models.open_sora.transformer import STDiT3


def _trained():
    torch.manual_seed(0)
    small = {**TRANSFORMER, "hidden_size": 24, "depth": 1, "num_heads": 3}
    return Trained(STDiT3(**small), build_encoder(len(build_tokenizer())), OpenSoraScheduler(**SCHEDULER))


def _loss(trained, texts, seed=0):
    tokens = build_tokenizer()(texts, max_length=16, padding="max_length", return_tensors="pt")
    latents = torch.randn(len(texts), 4, 5, 8, 8, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(seed)
    return trained.loss(latents, tokens["input_ids"], tokens["attention_mask"], generator)[0]


def test_the_loss_of_an_untrained_model_is_the_power_of_the_velocity():
    loss = _loss(_trained(), ["a red seven moving left"] * 64)
    assert abs(loss.item() - 2.0) < 0.1, "latents and noise have variance 1 and the first prediction is 0"


def test_the_text_encoder_learns_with_the_transformer():
    trained = _trained()
    torch.nn.init.normal_(trained.transformer.final_layer.linear.weight, std=0.1)
    for block in (*trained.transformer.spatial_blocks, *trained.transformer.temporal_blocks):
        torch.nn.init.normal_(block.cross_attn.proj.weight, std=0.1)
    _loss(trained, ["a red seven moving left", "a blue two moving up"]).backward()
    gradient = trained.text_encoder.shared.weight.grad
    assert gradient.abs().sum() > 0


def test_the_shift_of_the_timesteps_is_that_of_the_real_model():
    tiny, real = OpenSoraScheduler(**SCHEDULER), OpenSoraScheduler()
    tiny.set_timesteps(10, height=64, width=64, num_frames=17)
    real.set_timesteps(10, height=240, width=426, num_frames=51)
    assert torch.allclose(tiny.timesteps, real.timesteps, rtol=0.01)


def test_a_compiled_model_is_saved_under_its_own_names():
    transformer = _trained().transformer
    names = list(transformer.state_dict())
    for block in transformer.spatial_blocks:
        block.compile()
    assert list(uncompiled(transformer).state_dict()) == names
