// Vectors of float32 in the language of GCC and clang, and the nonlinearities of an LSTM on them.

#pragma once

#include <stdlib.h>
#include <string.h>

#if defined(LSTM_LANES)
static const int LANES = LSTM_LANES;
#elif defined(__AVX512F__)
static const int LANES = 16;
#elif defined(__AVX__)
static const int LANES = 8;
#else
static const int LANES = 4;
#endif

typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef int Integers __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef long Index;  // 64 bits where there are strides of large arrays

#define INLINE static inline __attribute__((always_inline))

INLINE Lanes load(const float *from) { return *(const Unaligned *)from; }
INLINE void store(float *to, Lanes values) { *(Unaligned *)to = values; }
INLINE Lanes splat(float value) { return value - (Lanes){}; }
INLINE Lanes at_most(Lanes x, float bound) { return splat(bound) < x ? splat(bound) : x; }    // NaN stays NaN
INLINE Lanes at_least(Lanes x, float bound) { return splat(bound) > x ? splat(bound) : x; }

static float *allocate(Index numbers) { return (float *)aligned_alloc(64, (numbers * 4 + 64) / 64 * 64); }

// 1 / (1 + exp(-x)), relative error below 4e-7; exactly 0 below -89 and exactly 1 above 17. exp(y) is 2^n exp(r) with
// |r| <= ln(2) / 2 and a polynomial of least maximal relative error (1e-7); at y = 89 the power of two is infinite.
INLINE Lanes sigmoid(Lanes x) {
  const Lanes round = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  Lanes y = at_least(at_most(-x, 89.0f), -87.0f);
  Lanes n = y * 1.44269504f + round;
  Integers power = ((Integers)n << 23) + (127 << 23);
  n -= round;
  Lanes r = y - n * 0.693359375f + n * 2.12194440e-4f;
  Lanes p = splat(8.312523258e-3f);
  p = p * r + 4.189011406e-2f;
  p = p * r + 1.666711449e-1f;
  p = p * r + 4.999923179e-1f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return 1.0f / (1.0f + p * (Lanes)power);
}

// tanh(x) as x P(x^2) / Q(x^2), a least-maximum fit of the relative error on |x| <= 9, 6e-8 before rounding.
INLINE Lanes tangent(Lanes x) {
  x = at_least(at_most(x, 9.0f), -9.0f);
  Lanes z = x * x, p = splat(1.816255094e-11f), q = splat(2.279141142e-4f);
  p = p * z - 1.274387434e-8f;
  p = p * z + 9.255153237e-6f;
  p = p * z + 2.919414513e-3f;
  p = p * z + 1.291797454e-1f;
  p = p * z + 9.999999400e-1f;
  q = q * z + 2.375765089e-2f;
  q = q * z + 4.625125746e-1f;
  q = q * z + 1.0f;
  return x * p / q;
}

