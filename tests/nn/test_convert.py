"""Any torch model converted: what becomes of each layer, and that nothing else changes."""

import copy
import importlib
import pickle
import warnings
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval, prune
from torch_geometric.nn import MLP
from torch_geometric.nn import Linear as GeometricLinear

from dgcnn_ws import DGCNN, WSConv1d, WSConv2d, WSConv3d, WSLinear, convert_to_ws_gn, fuse, standardize_weight
from dgcnn_ws.errors import InputError


def conv_norm_relu(c_in: int, c_out: int, kernel: int = 3, **kwargs: int) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, kernel, padding=kwargs.get("dilation", 1) * (kernel // 2), bias=False, **kwargs)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())


class Bottleneck(nn.Module):
    def __init__(self, c_in: int, width: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        c_out = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(c_in, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, c_out, 1, bias=False), nn.BatchNorm2d(c_out)
        self.downsample = None
        if stride > 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, dilation: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Bottleneck(16, 8), Bottleneck(32, 8))
        self.layer2 = nn.Sequential(Bottleneck(32, 16, 3 - dilation, dilation), Bottleneck(64, 16, 1, dilation))
        self.fc = nn.Linear(64, 10)

    def features(self, x: Tensor) -> list[Tensor]:
        fine = self.layer1(F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2))
        return [fine, self.layer2(fine)]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x)[-1].mean((2, 3)))


class DeepLab(nn.Module):
    """Dilated backbone, pyramid of dilations with a pooled branch, fusion, prediction."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet(dilation=2)
        del self.backbone.fc
        self.branches = nn.ModuleList([conv_norm_relu(64, 32, 1), conv_norm_relu(64, 32, dilation=2)])
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_norm_relu(64, 32, 1))
        self.project = nn.Sequential(conv_norm_relu(96, 32, 1), nn.Dropout(0.1))
        self.classifier = nn.Conv2d(32, 21, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone.features(x)[-1]
        pooled = F.interpolate(self.pooled(features), size=features.shape[-2:])
        parts = [branch(features) for branch in self.branches]
        logits = self.classifier(self.project(torch.cat([*parts, pooled], dim=1)))
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear")


class Detector(nn.Module):
    """After Mask R-CNN: pyramid, a head shared by its levels, proposals whose number depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet()
        del self.backbone.fc
        self.lateral = nn.ModuleList([nn.Conv2d(32, 32, 1), nn.Conv2d(64, 32, 1)])
        self.smooth = nn.ModuleList([conv_norm_relu(32, 32), conv_norm_relu(32, 32)])
        self.rpn_conv, self.rpn_norm = nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.objectness, self.deltas = nn.Conv2d(32, 3, 1), nn.Conv2d(32, 12, 1)
        self.box_head = nn.Sequential(nn.Flatten(), nn.Linear(32 * 4, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU())
        self.box_score = nn.Linear(64, 5)
        self.mask_head = nn.Sequential(conv_norm_relu(32, 32), nn.ConvTranspose2d(32, 32, 2, 2), nn.BatchNorm2d(32))
        self.mask_score = nn.Conv2d(32, 5, 1)

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        levels = [conv(x) for conv, x in zip(self.lateral, self.backbone.features(torch.stack(images)), strict=True)]
        levels[0] = levels[0] + F.interpolate(levels[1], size=levels[0].shape[-2:])
        outs = []
        for smooth, level in zip(self.smooth, levels, strict=True):
            proposals = F.relu(self.rpn_norm(self.rpn_conv(smooth(level))))
            keep = self.objectness(proposals).flatten(1).amax(1) > -1e3
            if keep.any():  # on the data: no tracer gets past this
                crops = F.adaptive_avg_pool2d(proposals[keep], 2)
                outs += [self.deltas(proposals), self.box_score(self.box_head(crops))]
                outs.append(self.mask_score(F.relu(self.mask_head(crops))))
        return outs


def assert_same_but_for_norms(model: nn.Module, converted: nn.Module) -> None:
    """Every parameter is there under its name, and nothing but running statistics is gone."""
    before, after = dict(model.named_parameters()), dict(converted.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    gone = model.state_dict().keys() - converted.state_dict().keys()
    assert all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in gone)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in converted.modules())


def left(model: nn.Module) -> dict[str, str]:
    return {change.name: change.why for change in convert_to_ws_gn(model).report.left}


def test_resnet() -> None:
    model = ResNet()
    converted, report = convert_to_ws_gn(model, groups=8)
    assert_same_but_for_norms(model, converted)
    assert {change.name for change in report.left} == {"fc"}
    convs = [module for module in converted.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == 15 and all(type(conv) is WSConv2d for conv in convs)
    norms = [module for module in converted.modules() if isinstance(module, nn.GroupNorm)]
    assert {(norm.num_groups, norm.num_channels) for norm in norms} == {(8, 16), (4, 8), (8, 32), (8, 64)}
    assert type(converted.fc) is nn.Linear
    assert "layer1.0.conv1: Conv2d -> WSConv2d (followed by layer1.0.bn1)" in str(report)
    assert "fc: Linear left (its output goes to output, not to a norm)" in str(report)
    converted, (one, two) = converted.double(), torch.randn(2, 1, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(converted(torch.cat([one, two]))[:1], converted(one), msg="images must not mix")
    assert type(model.conv1) is nn.Conv2d and type(model.bn1) is nn.BatchNorm2d, "the model given stays as it is"


def test_the_converted_layers_compute_the_formula() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, eps=1e-3)).double()
    nn.init.normal_(model[1].weight)
    nn.init.normal_(model[1].bias)
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    y = F.conv2d(x, standardize_weight(model[0].weight), model[0].bias)
    groups = y.view(2, 4, -1)  # of two channels
    groups = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, keepdim=True, correction=0) + 1e-3).sqrt()
    expected = groups.view_as(y) * model[1].weight.view(1, 8, 1, 1) + model[1].bias.view(1, 8, 1, 1)
    torch.testing.assert_close(convert_to_ws_gn(model).model(x), expected)


def test_deeplab() -> None:
    model = DeepLab()
    converted, report = convert_to_ws_gn(model)
    assert_same_but_for_norms(model, converted)
    assert {change.name for change in report.left} == {"classifier"}
    assert converted(torch.randn(1, 3, 32, 32)).shape == (1, 21, 32, 32), "batch 1, where batch norm cannot train"


def test_a_detector_that_cannot_be_traced() -> None:
    model = Detector()
    converted, report = convert_to_ws_gn(model)
    assert_same_but_for_norms(model, converted)
    kept = {change.name for change in report.left}
    scores = {"objectness", "deltas", "box_score", "mask_score"}
    assert kept == {"lateral.0", "lateral.1", "mask_head.1", *scores}
    assert "transposed" in left(model)["mask_head.1"]
    assert type(converted.rpn_conv) is WSConv2d and type(converted.box_head[1]) is WSLinear
    assert any("cannot be traced" in change.why for change in report.changed if change.name == "rpn_conv")
    for out in converted([torch.randn(3, 32, 32), torch.randn(3, 32, 32)]):
        assert out.isfinite().all()


def test_sync_batch_norm_and_every_number_of_dimensions() -> None:
    model = nn.Sequential(
        *(nn.Conv3d(2, 64, 3), nn.SyncBatchNorm(64), nn.Flatten(3)),
        *(nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64, affine=False), nn.Flatten(2)),
        *(nn.Conv1d(64, 64, 1), nn.BatchNorm1d(64), nn.Flatten(1)),
        *(nn.Linear(64 * 8, 64), nn.BatchNorm1d(64)),
    )
    converted, _ = convert_to_ws_gn(model)
    kinds = [type(module) for module in converted if not isinstance(module, nn.Flatten)]
    assert kinds == [WSConv3d, nn.GroupNorm, WSConv2d, nn.GroupNorm, WSConv1d, nn.GroupNorm, WSLinear, nn.GroupNorm]
    assert converted[4].weight is None
    assert converted(torch.randn(1, 2, 4, 4, 4)).shape == (1, 64)


@pytest.mark.parametrize(
    "channels, asked, expected", [(64, 32, 32), (48, 32, 24), (30, 32, 15), (7, 4, 1), (1, 32, 1), (32, 32, 16)]
)
def test_group_counts_are_legal_and_leave_two_channels_a_group(channels: int, asked: int, expected: int) -> None:
    norm = convert_to_ws_gn(nn.Sequential(nn.BatchNorm2d(channels)), asked).model[0]
    assert norm.num_groups == expected


def test_a_vector_keeps_more_than_signs() -> None:
    norm = convert_to_ws_gn(nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64))).model[1]
    assert norm.num_groups == 4


def test_what_is_left_and_why() -> None:
    class Mine(nn.Conv2d):
        pass

    hooked = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 8, 1))
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4)),
        *(Mine(4, 4, 1), nn.BatchNorm2d(4)),
        *(WSConv2d(4, 4, 1), nn.BatchNorm2d(4)),
        *(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        *(hooked, nn.BatchNorm2d(8), nn.InstanceNorm2d(8)),
    )
    reasons = left(model)
    assert "fan-in 1" in reasons["0"] and "subclass" in reasons["2"] and "already" in reasons["4"]
    assert reasons["6"] == "its output goes to 7, not to a norm"
    assert "a parametrization" in reasons["9"] and "not one of torch's batch norms" in reasons["11"]
    convert_to_ws_gn(model).model(torch.randn(2, 1, 5, 5))


def test_a_depthwise_filter_keeps_its_channels_level() -> None:
    def first(conv: nn.Module) -> nn.Module:
        return convert_to_ws_gn(nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU())).model[0]  # type: ignore[index]

    depthwise = nn.Conv2d(4, 8, 3, groups=4, bias=False)
    assert type(first(depthwise)) is nn.Conv2d
    flat = torch.ones(1, 4, 5, 5)
    assert torch.equal(first(depthwise)(flat), depthwise(flat))  # standardized it would be zero
    for conv in (nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(1, 8, 3)):
        assert type(first(conv)) is WSConv2d
    assert "depthwise" in left(nn.Sequential(depthwise, nn.BatchNorm2d(8)))["0"]


def test_a_shared_layer_is_standardized_only_where_a_norm_follows_every_call() -> None:
    class Shared(nn.Module):
        def __init__(self, always: bool) -> None:
            super().__init__()
            self.conv, self.always = nn.Conv2d(4, 4, 1), always
            self.one, self.two = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
            self.again = self.one

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(self.again(self.one(self.conv(x))))
            return self.two(y) if self.always else y + x

    assert left(Shared(always=True)) == {}
    assert list(left(Shared(always=False))) == ["conv"]
    converted = convert_to_ws_gn(Shared(always=True)).model
    assert isinstance(converted.one, nn.GroupNorm) and converted.again is converted.one


def test_through_pooling_concatenation_and_reshapes() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.linear = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Linear(4, 8)
            self.norm, self.last = nn.BatchNorm2d(8), nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(torch.cat([F.max_pool2d(self.one(x), 2), nn.functional.avg_pool2d(self.two(x), 2)], 1))
            z = self.linear(y.flatten(2)[:, :4].transpose(1, 2))  # (B, L, 8)
            return self.last(z.transpose(1, 2))

    assert left(Net()) == {}


@pytest.mark.parametrize("training", [True, False])
def test_fuse_is_exact_and_of_plain_layers(training: bool) -> None:
    model = convert_to_ws_gn(ResNet()).model.train(training)
    state = copy.deepcopy(model.state_dict())
    fused, x = fuse(model), torch.randn(2, 3, 32, 32)
    assert torch.equal(fused(x), model(x))
    assert fused.state_dict().keys() == state.keys()
    assert not any(type(module).__module__.startswith("dgcnn_ws.nn.weight") for module in fused.modules())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items()), "it stays as it is"


def test_our_networks() -> None:
    model = DGCNN(5, k=4, norm="bn", widths=(8, 12), emb_dims=64, hidden=(32, 16))
    converted, report = convert_to_ws_gn(model)
    assert_same_but_for_norms(model, converted)
    assert [change.name for change in report.left] == ["head.layers.8"]
    converted, x = converted.double(), torch.randn(2, 3, 30, dtype=torch.float64)
    torch.testing.assert_close(converted.eval()(x)[:1], converted(x[:1]), msg="clouds must not mix")
    assert torch.equal(fuse(converted)(x), converted(x))


def test_batch_norms_join_the_fused_layers() -> None:
    """torch's fuse_conv_bn_eval is wrong for standardized layers (torch 2.13.0) and right for what `fuse` gives."""
    block = nn.Sequential(WSConv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8))
    x = torch.randn(2, 6, 5, 4)
    for _ in range(20):
        block(3 * x + 1)
    block.eval()
    fused = fuse(block)
    joined = fuse_conv_bn_eval(fused[0], fused[1])  # type: ignore[arg-type,type-var]
    torch.testing.assert_close(joined(x), block(x))


def test_wrong_groups_are_refused() -> None:
    with pytest.raises(InputError, match="groups=0"):
        convert_to_ws_gn(nn.Sequential(nn.BatchNorm2d(4)), groups=0)


def test_modes_and_root() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8).eval(), nn.Dropout())
    converted, _ = convert_to_ws_gn(model)
    assert [module.training for module in converted] == [True, False, True] and model[0].training
    assert isinstance(convert_to_ws_gn(nn.BatchNorm2d(8)).model, nn.GroupNorm)


class NormAct(nn.BatchNorm2d):
    """After timm's BatchNormAct2d: norm, dropout and activation in one."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Dropout(0.0), nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


class Doubled(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Frozen(nn.Module):
    """After the batch norm of torchvision's detectors: buffers alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "running_var"):
            self.register_buffer(name, torch.full((channels,), 2.0))
        for name in ("bias", "running_mean"):
            self.register_buffer(name, torch.full((channels,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * self.running_var.rsqrt()
        return x * scale.view(1, -1, 1, 1) + (self.bias - self.running_mean * scale).view(1, -1, 1, 1)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.conv(x), None, None, training=True)


def test_a_norm_that_holds_its_activation() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), NormAct(8)).double()
    nn.init.normal_(model[1].weight)
    converted, report = convert_to_ws_gn(model)
    assert_same_but_for_norms(model, converted)
    assert not report.left and type(converted[0]) is WSConv2d
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    normed = F.group_norm(converted[0](x), 4, model[1].weight, model[1].bias)
    torch.testing.assert_close(converted(x), F.leaky_relu(normed, 0.1))
    assert isinstance(converted[1].act, nn.LeakyReLU), "under its own name"
    assert type(pickle.loads(pickle.dumps(converted))[1]) is type(converted[1])


def test_what_still_needs_the_batch_is_named() -> None:
    assert left(nn.Sequential(nn.Conv2d(3, 8, 3), Doubled(8))) == {
        "1": "a batch norm with rules of its own; it still needs a batch"
    }
    reasons = left(nn.Sequential(Functional(), nn.ReLU()))
    assert reasons == {"0": "called as a function; it still needs a batch"}
    assert "batch_norm in Functional left" in str(convert_to_ws_gn(Functional()).report)


def test_frozen_statistics_stay_with_the_layer_they_belong_to() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), Frozen(8), nn.ReLU())
    converted, report = convert_to_ws_gn(model)
    x = torch.randn(2, 3, 7, 7)
    assert torch.equal(converted(x), model(x))
    assert [change.name for change in report.left] == ["0", "1"] and "frozen" in report[1].why


def test_a_scripted_part_is_left_and_named() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    model = nn.Sequential(scripted, nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    converted, report = convert_to_ws_gn(model)
    assert str(report[0]).startswith("0: Sequential left (scripted")
    assert type(converted[1]) is WSConv2d and len(report) == 3
    assert converted(torch.randn(2, 3, 5, 5)).isfinite().all()


def test_weights_that_hooks_compute() -> None:
    """torch's deepcopy refuses such models; they keep their weights' rule."""
    normed = nn.utils.weight_norm(nn.Conv2d(3, 8, 3))
    pruned = prune.l1_unstructured(nn.Conv2d(8, 8, 3), "weight", 0.5)
    model = nn.Sequential(normed, nn.BatchNorm2d(8), pruned, nn.BatchNorm2d(8))
    converted, report = convert_to_ws_gn(model)
    assert {change.name: change.why for change in report.left} == dict.fromkeys(
        ("0", "2"), "its weight is computed by a hook or a parametrization"
    )
    converted(torch.randn(2, 3, 9, 9)).sum().backward()
    assert (converted[2].weight == 0).float().mean() == 0.5
    before = converted[0].weight_g.clone()
    with torch.no_grad():
        model[0].weight_g.mul_(2)
    assert torch.equal(converted[0].weight_g, before), "a copy"
    block = nn.Sequential(prune.l1_unstructured(WSConv2d(3, 8, 3), "weight", 0.5), nn.GroupNorm(4, 8))
    x = torch.randn(2, 3, 9, 9)
    assert torch.equal(fuse(block)(x), block(x))


def test_torch_geometrics_linear() -> None:
    model = MLP([6, 32, 8, 2], norm_kwargs={"allow_single_element": True})
    converted, report = convert_to_ws_gn(model)
    assert [change.name for change in report.left] == ["lins.2"]
    assert [type(linear) for linear in converted.lins] == [WSLinear, WSLinear, type(model.lins[2])]
    assert_same_but_for_norms(model, converted)
    one, other = torch.randn(1, 6), torch.randn(1, 6)
    torch.testing.assert_close(converted(torch.cat([one, other]))[:1], converted(one))
    assert converted.lins[0].in_channels == 6
    lazy = left(nn.Sequential(GeometricLinear(-1, 8), nn.BatchNorm1d(8)))
    assert lazy == {"0": "lazy: it has no weight yet; call the model once, then convert"}


def test_other_weights_are_named() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8))
    assert list(left(model)) == ["0"] and "weights of its own" in left(model)["0"]


class Squeeze(nn.Module):
    """A norm behind the mean over the image, as in squeeze-and-excitation."""

    def __init__(self, channels: int, function: bool) -> None:
        super().__init__()
        self.reduce, self.norm = nn.Conv2d(16, channels, 1), nn.BatchNorm2d(channels)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True) if self.function else F.adaptive_avg_pool2d(x, 1)
        return x[:, :1] * self.norm(F.relu(self.reduce(pooled))).mean(1, keepdim=True).sigmoid()


@pytest.mark.parametrize("function", [True, False])
def test_norms_behind_a_global_pooling_keep_more_than_signs(function: bool) -> None:
    for channels, groups in ((64, 4), (48, 3), (8, 1)):
        converted, report = convert_to_ws_gn(Squeeze(channels, function))
        assert converted.norm.num_groups == groups
        assert "behind pooling to one number a channel" in report[-1].why
    branch = nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Conv2d(16, 64, 1, bias=False), nn.BatchNorm2d(64))
    out = convert_to_ws_gn(branch).model(torch.randn(200, 16, 4, 4))
    assert ((out.abs() - 1).abs() < 0.01).float().mean() < 0.1
    image = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Conv2d(16, 64, 1), nn.BatchNorm2d(64))
    assert convert_to_ws_gn(image).model[2].num_groups == 32
    upsampled = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Upsample(scale_factor=8), nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64)
    )
    assert convert_to_ws_gn(upsampled).model[3].num_groups == 32


def test_one_channel_does_not_become_a_constant() -> None:
    model = nn.Sequential(nn.Linear(4, 1), nn.BatchNorm1d(1))
    converted, report = convert_to_ws_gn(model)
    assert type(converted[1]) is nn.BatchNorm1d and "signs alone" in report[1].why
    image = convert_to_ws_gn(nn.Sequential(nn.Conv2d(3, 1, 3), nn.BatchNorm2d(1))).model
    assert image(torch.randn(1, 3, 8, 8)).std() > 0.5


def library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # torchvision fails to load beside a torch it was not built for
        pytest.skip(f"{name}: {error}")


@pytest.mark.parametrize("name, last", [("resnet18", "fc"), ("densenet121", "classifier")])
def test_torchvision(name: str, last: str) -> None:
    model = library("torchvision").models.get_model(name, weights=None)
    converted, report = convert_to_ws_gn(model)
    assert_same_but_for_norms(model, converted)
    assert last in {change.name for change in report.left}
    assert converted(torch.randn(1, 3, 64, 64)).isfinite().all()


def test_timm() -> None:
    model = library("timm").create_model("resnet26d", pretrained=False)
    converted, _ = convert_to_ws_gn(model)
    assert sum(isinstance(module, WSConv2d) for module in converted.modules()) > 20
