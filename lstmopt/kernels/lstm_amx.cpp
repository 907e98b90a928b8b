// One LSTM layer in bfloat16 on a CPU with AMX: forward, and backward through time with the gradients of the weights.
//
// The equations and the order of the gates (i, f, g, o) are those of torch.nn.LSTM. Factors of products are rounded to
// bfloat16 and added up in float32 by the tile unit; cells, their gradients and the gradients of the weights stay in
// float32; outputs and gates are kept in bfloat16 for the way back. The tile unit is some twenty times as fast as vectors,
// so that what counts is the rest: the nonlinearities, and how little of memory is touched. Each thread takes some of the
// sequences through all steps and waits for nobody.
//
// All arrays are row-major. The hidden size is a multiple of lstm_lanes(), the input size is even, and arrays of bfloat16
// that are read here have 16 rows more than they need: tiles have 16 rows, and what the last ones read is not used.

#include "lanes.h"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__)

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef unsigned short Half;  // the bits of a bfloat16

static const int GATES = 4;
static const int TILE = 16, DEEP = 32, NUMBERS = TILE * DEEP;  // rows of a tile; products of each of its sums; bfloat16s
static const int SPAN = 4;  // steps whose gradients of the weights are added up together

// What GCC's own say nothing of is that they read and write memory.
#define LOAD(tile, from, stride) \
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(from), "r"((Index)(stride)) : "memory")
#define STORE(tile, to, stride) \
  __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"((Index)(stride)) : "memory")

// Adds the products of a tile with four others, each loaded in turn, `apart` numbers from one to the next.
#define MULTIPLY(one, other, from, apart, stride)                                  \
  LOAD(other, from, stride);                  _tile_dpbf16ps(0, one, other);       \
  LOAD(other, (from) + (apart), stride);      _tile_dpbf16ps(1, one, other);       \
  LOAD(other, (from) + 2 * (apart), stride);  _tile_dpbf16ps(2, one, other);       \
  LOAD(other, (from) + 3 * (apart), stride);  _tile_dpbf16ps(3, one, other);

INLINE Lanes load_half(const Half *from) {
  return (Lanes)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)), 16);
}
INLINE void store_half(Half *to, Lanes values) {
  _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh((__m512)values));
}
INLINE Half rounded(float value) {  // to the nearest, ties to even
  unsigned bits;
  memcpy(&bits, &value, 4);
  return (Half)(value != value ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static Half *allocate_half(Index numbers) { return (Half *)allocate((numbers + 1) / 2); }
INLINE Index up(Index number, Index multiple) { return (number + multiple - 1) / multiple * multiple; }

struct Job {
  Index steps, batch, inputs, hidden;
  const Half *x;                   // [steps, batch, inputs]
  const Half *panels;              // packed weights
  const float *bias;               // [4 hidden]
  const Half *first_h;             // [batch, hidden]
  const float *first_c;            // [batch, hidden]
  Half *h;                         // [steps, batch, hidden], after each step
  float *c;                        // the same
  Half *gates;                     // [steps, batch, 4 hidden] after their nonlinearities, or none
  const Half *d_out;               // gradient of the output [steps, batch, hidden], strides beside, or none
  Index d_out_step, d_out_sequence;
  const float *d_last_c;           // [batch, hidden] or none
  float *d_x;                      // [steps, batch, inputs] or none
  float *d_h, *d_c;                // [batch, hidden], of the first state
  float *d_weights, *d_bias;       // of this thread: tiles [(hidden + inputs, filled up) / 16][4 hidden / 16]; [4 hidden]
  Index from, to;                  // the sequences of this thread
};

template <class T>
INLINE T *before(T *first, T *all, const Job &job, Index t) {
  return t ? all + (t - 1) * job.batch * job.hidden : first;
}

// Tiles 0 to 3 are sums, 4 and 5 factors, 6 and 7 factors of the `rest` inputs (an even number) beyond whole tiles.
static void configure(Index rest) {
  struct __attribute__((aligned(64))) { unsigned char palette, start, zero[14]; unsigned short bytes[16]; unsigned char rows[16]; } tiles = {};
  tiles.palette = 1;
  for (int n = 0; n < 8; n++) tiles.bytes[n] = 64, tiles.rows[n] = TILE;
  if (rest) tiles.bytes[6] = (unsigned short)(2 * rest), tiles.rows[7] = (unsigned char)(rest / 2);
  _tile_loadconfig(&tiles);
}

// ---------------------------------------------------------------------------------------------------------------- forward

INLINE void cells(const Job &job, Index t, Index b, Index rows, Index unit, const float (*sums)[TILE][LANES]) {
  const Index hidden = job.hidden, layer = job.batch * hidden;
  const float *bias = job.bias + unit, *c_before = before(job.first_c, (const float *)job.c, job, t);
  for (Index r = 0; r < rows; r++) {
    const Lanes i = sigmoid(load(sums[0][r]) + load(bias)), f = sigmoid(load(sums[1][r]) + load(bias + hidden));
    const Lanes g = tangent(load(sums[2][r]) + load(bias + 2 * hidden)), o = sigmoid(load(sums[3][r]) + load(bias + 3 * hidden));
    const Index at = (b + r) * hidden + unit;
    const Lanes c = f * load(c_before + at) + i * g;
    store(job.c + t * layer + at, c);
    store_half(job.h + t * layer + at, o * tangent(c));
    if (job.gates) {
      Half *to = job.gates + (t * job.batch + b + r) * GATES * hidden + unit;
      store_half(to, i), store_half(to + hidden, f), store_half(to + 2 * hidden, g), store_half(to + 3 * hidden, o);
    }
  }
}

static void forward(const Job &job) {
  const Index hidden = job.hidden, inputs = job.inputs, whole = inputs / DEEP * DEEP, rest = inputs - whole;
  const Index panel = (hidden + up(inputs, DEEP)) / DEEP * GATES * NUMBERS;
  float sums[GATES][TILE][LANES] __attribute__((aligned(64)));
  configure(rest);
  for (Index t = 0; t < job.steps; t++) {
    const Half *h = before(job.first_h, (const Half *)job.h, job, t), *x = job.x + t * job.batch * inputs;
    for (Index unit = 0; unit < hidden; unit += LANES)
      for (Index b = job.from; b < job.to; b += TILE) {
        const Half *weights = job.panels + unit / LANES * panel;
        _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
        for (Index k = 0; k < hidden + whole; k += DEEP, weights += GATES * NUMBERS) {
          if (k < hidden) LOAD(4, h + b * hidden + k, hidden * 2);
          else LOAD(4, x + b * inputs + k - hidden, inputs * 2);
          MULTIPLY(4, 5, weights, NUMBERS, 64)
        }
        if (rest) {
          LOAD(6, x + b * inputs + whole, inputs * 2);
          MULTIPLY(6, 7, weights, NUMBERS, 64)
        }
        STORE(0, sums[0], 64);
        STORE(1, sums[1], 64);
        STORE(2, sums[2], 64);
        STORE(3, sums[3], 64);
        cells(job, t, b, job.to - b < TILE ? job.to - b : TILE, unit, sums);
      }
  }
  _tile_release();
}

// --------------------------------------------------------------------------------------------------------------- backward

// Gradients of the sums of a step's gates, into d [rows][4 hidden]; d_c becomes that of the step before.
INLINE void cells_backward(const Job &job, Index t, const float *d_h, Index of_row, float *d_c, Half *d) {
  const Index hidden = job.hidden, layer = job.batch * hidden, rows = job.to - job.from;
  const float *first = before(job.first_c, (const float *)job.c, job, t);
  for (Index unit = 0; unit < hidden; unit += LANES) {
    float *bias = job.d_bias + unit;
    Lanes sum_i = load(bias), sum_f = load(bias + hidden), sum_g = load(bias + 2 * hidden), sum_o = load(bias + 3 * hidden);
    for (Index row = 0; row < rows; row++) {
      const Index b = job.from + row, at = row * hidden + unit, cell = b * hidden + unit;
      const Half *gates = job.gates + (t * job.batch + b) * GATES * hidden + unit;
      const Lanes i = load_half(gates), f = load_half(gates + hidden), g = load_half(gates + 2 * hidden), o = load_half(gates + 3 * hidden);
      const Lanes c_before = load(first + cell), tanh_c = tangent(load(job.c + t * layer + cell));
      Lanes of_h = load(d_h + row * of_row + unit);
      if (job.d_out) of_h += load_half(job.d_out + t * job.d_out_step + b * job.d_out_sequence + unit);
      const Lanes of_c = load(d_c + at) + of_h * o * (1.0f - tanh_c * tanh_c);
      const Lanes d_i = of_c * g * i * (1.0f - i), d_f = of_c * c_before * f * (1.0f - f);
      const Lanes d_g = of_c * i * (1.0f - g * g), d_o = of_h * tanh_c * o * (1.0f - o);
      Half *to = d + row * GATES * hidden + unit;
      store_half(to, d_i), store_half(to + hidden, d_f), store_half(to + 2 * hidden, d_g), store_half(to + 3 * hidden, d_o);
      sum_i += d_i, sum_f += d_f, sum_g += d_g, sum_o += d_o;
      store(d_c + at, of_c * f);
    }
    store(bias, sum_i), store(bias + hidden, sum_f), store(bias + 2 * hidden, sum_g), store(bias + 3 * hidden, sum_o);
  }
}

// Rows two by two, number by number: what a tile takes as its second factor.
static void pair(const Half *from, Index rows, Index wide, Half *to) {
  for (Index row = 0; row < rows; row += 2)
    for (Index n = 0; n < wide; n += LANES) {
      const Half *one = from + row * wide + n, *other = one + wide;
      const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)one));
      const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)other)), 16);
      _mm512_storeu_si512(to + row * wide + 2 * n, _mm512_or_si512(low, high));
    }
}

// from [rows][wide] to [wide][stride]
static void transpose(const Half *from, Index rows, Index wide, Half *to, Index stride) {
  for (Index n = 0; n < wide; n++)
    for (Index row = 0; row < rows; row++) to[n * stride + row] = from[row * wide + n];
}

// Adds the products of a [columns][rows] with d [rows][4 hidden], in pairs, to tiles of gradients.
static void weights_backward(const Half *a, Index of_column, Index columns, Index rows, const Half *pairs, Index wide,
                             float *to) {
  for (Index column = 0; column < columns; column += TILE)
    for (Index n = 0; n < wide; n += 4 * TILE, to += 4 * TILE * TILE) {
      LOAD(0, to, 64);
      LOAD(1, to + TILE * TILE, 64);
      LOAD(2, to + 2 * TILE * TILE, 64);
      LOAD(3, to + 3 * TILE * TILE, 64);
      for (Index row = 0; row < rows; row += DEEP) {
        const Half *d = pairs + row * wide + 2 * n;
        LOAD(4, a + column * of_column + row, of_column * 2);
        MULTIPLY(4, 5, d, 2 * TILE, wide * 4)
      }
      STORE(0, to, 64);
      STORE(1, to + TILE * TILE, 64);
      STORE(2, to + 2 * TILE * TILE, 64);
      STORE(3, to + 3 * TILE * TILE, 64);
    }
}

// Products of d [rows][4 hidden] with the weights: gradients of h and x, [rows][columns].
static void inputs_backward(const Half *d, Index rows, Index wide, const Half *panels, float *to, Index columns) {
  for (Index column = 0; column < columns; column += 2 * TILE, panels += wide * 2 * TILE)
    for (Index row = 0; row < rows; row += 2 * TILE) {
      const Half *weights = panels;
      _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
      for (Index n = 0; n < wide; n += DEEP, weights += 2 * NUMBERS) {
        LOAD(4, d + row * wide + n, wide * 2);
        LOAD(6, weights, 64);
        _tile_dpbf16ps(0, 4, 6);
        LOAD(7, weights + NUMBERS, 64);
        _tile_dpbf16ps(1, 4, 7);
        LOAD(5, d + (row + TILE) * wide + n, wide * 2);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      STORE(0, to + row * columns + column, columns * 4);
      STORE(1, to + row * columns + column + TILE, columns * 4);
      STORE(2, to + (row + TILE) * columns + column, columns * 4);
      STORE(3, to + (row + TILE) * columns + column + TILE, columns * 4);
    }
}

static Index columns(const Job &job) { return job.hidden + (job.d_x ? up(job.inputs, DEEP) : 0); }

static void backward(const Job &job) {
  const Index hidden = job.hidden, inputs = job.inputs, here = job.to - job.from, wide = GATES * hidden;
  const Index rows = up(here, DEEP), in = up(inputs, TILE), of_row = columns(job);
  const Index stride = SPAN * rows;
  Half *d = allocate_half(rows * wide), *pairs = allocate_half(stride * wide);
  Half *h = allocate_half(hidden * stride), *x = allocate_half(in * stride);
  float *d_in = allocate(rows * of_row), *d_c = allocate(here * hidden);
  memset(d, 0, rows * wide * 2), memset(h, 0, hidden * stride * 2), memset(x, 0, in * stride * 2);
  memset(d_in, 0, rows * of_row * 4);
  if (job.d_last_c) memcpy(d_c, job.d_last_c + job.from * hidden, here * hidden * 4);
  else memset(d_c, 0, here * hidden * 4);
  configure(0);
  for (Index t = job.steps - 1; t >= 0; t--) {
    cells_backward(job, t, d_in, of_row, d_c, d);
    const Index at = t % SPAN * rows;
    pair(d, rows, wide, pairs + at * wide);
    transpose(before(job.first_h, (const Half *)job.h, job, t) + job.from * hidden, here, hidden, h + at, stride);
    transpose(job.x + (t * job.batch + job.from) * inputs, here, inputs, x + at, stride);
    if (at == 0) {  // the first of them in time, the last to be done
      const Index filled = (job.steps - t < SPAN ? job.steps - t : SPAN) * rows;
      weights_backward(h, stride, hidden, filled, pairs, wide, job.d_weights);
      weights_backward(x, stride, in, filled, pairs, wide, job.d_weights + hidden * wide);
    }
    inputs_backward(d, rows, wide, job.panels, d_in, of_row);
    if (job.d_x)
      for (Index row = 0; row < here; row++)
        memcpy(job.d_x + (t * job.batch + job.from + row) * inputs, d_in + row * of_row + hidden, inputs * 4);
  }
  _tile_release();
  for (Index row = 0; row < here; row++)
    memcpy(job.d_h + (job.from + row) * hidden, d_in + row * of_row, hidden * 4);
  memcpy(job.d_c + job.from * hidden, d_c, here * hidden * 4);
  free(d), free(pairs), free(h), free(x), free(d_in), free(d_c);
}

// ----------------------------------------------------------------------------------------------------------------- calls

static int at_work(int threads, Index batch) {
  const Index most = up(batch, TILE) / TILE;
  if (threads > most) threads = (int)most;
  return threads < 1 ? 1 : threads;
}

static void share(void (*work)(const Job &), const Job &whole, int threads) {
  const Index tiles = up(whole.batch, TILE) / TILE, wide = GATES * whole.hidden;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int n = 0; n < threads; n++) {
    Job job = whole;
    job.from = tiles * n / threads * TILE, job.to = tiles * (n + 1) / threads * TILE;
    if (job.to > job.batch) job.to = job.batch;
    if (job.d_weights) job.d_weights += n * (whole.hidden + up(whole.inputs, TILE)) * wide, job.d_bias += n * wide;
    work(job);
  }
}

// The hidden size has to be a multiple of it; 0 where the system does not let this process use the tile unit.
extern "C" int lstm_lanes(void) { return syscall(SYS_arch_prctl, 0x1023, 18) ? 0 : DEEP; }  // ARCH_REQ_XCOMP_PERM, XTILEDATA

// Fills h and c [steps, batch, hidden], and gates [steps, batch, 4 hidden] if given.
extern "C" void lstm_forward(Index steps, Index batch, Index inputs, Index hidden, const Half *x, const float *of_input,
                             const float *of_hidden, const float *bias, const Half *first_h, const float *first_c,
                             Half *h, float *c, Half *gates, int threads) {
  const Index deep = hidden + up(inputs, DEEP);
  Half *panels = allocate_half(deep * GATES * hidden), *to = panels;
  for (Index unit = 0; unit < hidden; unit += LANES)
    for (Index k = 0; k < deep; k += DEEP)
      for (int gate = 0; gate < GATES; gate++)
        for (Index pair = k; pair < k + DEEP; pair += 2)
          for (Index n = gate * hidden + unit; n < gate * hidden + unit + LANES; n++)
            for (Index i = pair; i < pair + 2; i++)
              *to++ = i < hidden ? rounded(of_hidden[n * hidden + i]) : i - hidden < inputs ? rounded(of_input[n * inputs + i - hidden]) : 0;
  Job job = {};
  job.steps = steps, job.batch = batch, job.inputs = inputs, job.hidden = hidden, job.x = x, job.panels = panels;
  job.bias = bias, job.first_h = first_h, job.first_c = first_c, job.h = h, job.c = c, job.gates = gates;
  share(forward, job, at_work(threads, batch));
  free(panels);
}

// Gradients of the weights [4 hidden, ...], the bias, the first state, and of x [steps, batch, inputs] if d_x is given.
extern "C" void lstm_backward(Index steps, Index batch, Index inputs, Index hidden, const Half *x, const float *of_input,
                              const float *of_hidden, const Half *first_h, const float *first_c, Half *h, float *c,
                              Half *gates, const Half *d_out, Index d_out_step, Index d_out_sequence,
                              const float *d_last_c, float *d_x, float *d_of_input, float *d_of_hidden, float *d_bias,
                              float *d_h, float *d_c, int threads) {
  threads = at_work(threads, batch);
  Job job = {};
  job.steps = steps, job.batch = batch, job.inputs = inputs, job.hidden = hidden, job.x = x;
  job.first_h = first_h, job.first_c = first_c, job.h = h, job.c = c, job.gates = gates;
  job.d_out = d_out, job.d_out_step = d_out_step, job.d_out_sequence = d_out_sequence, job.d_last_c = d_last_c;
  job.d_x = d_x, job.d_h = d_h, job.d_c = d_c;
  const Index of_row = columns(job), wide = GATES * hidden, size = (hidden + up(inputs, TILE)) * wide;
  Half *panels = allocate_half(of_row * wide), *to = panels;
  for (Index column = 0; column < of_row; column += 2 * TILE)
    for (Index n = 0; n < wide; n += DEEP)
      for (Index half = column; half < column + 2 * TILE; half += TILE)
        for (Index pair = n; pair < n + DEEP; pair += 2)
          for (Index k = half; k < half + TILE; k++)
            for (Index i = pair; i < pair + 2; i++)
              *to++ = k < hidden ? rounded(of_hidden[i * hidden + k]) : k - hidden < inputs ? rounded(of_input[i * inputs + k - hidden]) : 0;
  job.panels = panels;
  job.d_weights = allocate(threads * size), job.d_bias = allocate(threads * wide);
  memset(job.d_weights, 0, threads * size * 4), memset(job.d_bias, 0, threads * wide * 4);
  share(backward, job, threads);
  for (int n = 1; n < threads; n++) {
    for (Index at = 0; at < size; at++) job.d_weights[at] += job.d_weights[n * size + at];
    for (Index at = 0; at < wide; at++) job.d_bias[at] += job.d_bias[n * wide + at];
  }
  const float *from = job.d_weights;
  for (Index k = 0; k < hidden + up(inputs, TILE); k += TILE)
    for (Index n = 0; n < wide; n += TILE)
      for (Index i = k; i < k + TILE; i++)
        for (Index j = n; j < n + TILE; j++, from++)
          if (i < hidden) d_of_hidden[j * hidden + i] = *from;
          else if (i - hidden < inputs) d_of_input[j * inputs + i - hidden] = *from;
  memcpy(d_bias, job.d_bias, wide * 4);
  free(panels), free(job.d_weights), free(job.d_bias);
}

#else

extern "C" int lstm_lanes(void) { return 0; }  // this CPU has no tile unit

#endif
