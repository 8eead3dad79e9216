// SPDX-License-Identifier: Apache-2.0
// One engine for every normalization: statistics over any set of elements, one fused normalize-affine pass, any
// memory layout, no copies.
//
//     std::vector<float> x(8 * 768), y(8 * 768), weight(768, 1.f);
//     anynorm::layer_norm(anynorm::view(x.data(), {8, 768}), anynorm::view(y.data(), {8, 768}), {-1},
//                         {.weight = anynorm::view(weight.data(), {768})});
//
// The engine is moments() and normalize(); the named norms are axis arithmetic on top of them.
#pragma once

#include "anynorm/batch_renorm.hpp"
#include "anynorm/fold.hpp"
#include "anynorm/fusion.hpp"
#include "anynorm/grouping.hpp"
#include "anynorm/lp_normalize.hpp"
#include "anynorm/moments.hpp"
#include "anynorm/normalize.hpp"
#include "anynorm/norms.hpp"
#include "anynorm/running.hpp"
#include "anynorm/runtime.hpp"
#include "anynorm/tensor_view.hpp"
#include "anynorm/version.hpp"
