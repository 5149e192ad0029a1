"""The vision tower: the part of SigLIP that HumanOmni reads."""

import torch
from transformers.models.siglip.configuration_siglip import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import (
    SiglipEncoder,
    SiglipPreTrainedModel,
    SiglipVisionEmbeddings,
)


class FrameTower(SiglipPreTrainedModel):
    """SigLIP without its last block, closing norm and head: HumanOmni reads what comes before them."""

    config: SiglipVisionConfig
    main_input_name = "pixel_values"

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__(config)
        self.embeddings = SiglipVisionEmbeddings(config)
        self.encoder = SiglipEncoder(config)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """`pixel_values`: [frames, 3, S, S] in -1..1; returns [frames, patches, width]."""
        hidden: torch.Tensor = self.encoder(inputs_embeds=self.embeddings(pixel_values)).last_hidden_state
        return hidden


__all__ = ["FrameTower"]
