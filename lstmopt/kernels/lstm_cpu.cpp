// One LSTM layer in float32 on a CPU: forward, and backward through time with the gradients of the weights.
//
// The equations and the order of the gates (i, f, g, o) are those of torch.nn.LSTM. What makes it fast: the weights are
// packed once per call into panels that the inner product reads in order; the products of a few sequences with the four
// gates of one block of units stay in registers until the new cell and output are known; backward, the gradients of a
// step's gates never leave the cache. Sequences do not depend on one another, so each thread takes some of them through
// all steps and waits for nobody.
//
// All arrays are row-major float32. The hidden size is a multiple of lstm_lanes().

#include "lanes.h"

// sequences whose sums fit into the registers
#if defined(LSTM_LANES)
static const int ROWS = LSTM_ROWS;
#elif defined(__AVX512F__)
static const int ROWS = 5;
#elif defined(__AVX__)
static const int ROWS = 3;
#else
static const int ROWS = 4;
#endif
static const int GATES = 4, WIDTH = GATES * LANES;

// sum[r][v] += over k: a[r * of_row + k * of_k] * panel[k][v]; the sums stay in registers.
INLINE void product(const int rows, const int vectors, Lanes sum[][GATES], const float *a, Index of_row, Index of_k,
                    Index steps, const float *panel) {
  for (Index k = 0; k < steps; k++, panel += vectors * LANES) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
      Lanes weights = load(panel + v * LANES);
#pragma GCC unroll 6
      for (int r = 0; r < rows; r++) sum[r][v] += a[r * of_row + k * of_k] * weights;
    }
  }
}

// call with N sequences (a constant) at b, for all b from..to: ROWS at a time, and no single one left over at the end
#define BY_ROWS(from, to, call)                                                                       \
  for (Index b = from, left = (to) - b; left > 0; left = (to) - b) {                                  \
    const Index take = left >= ROWS && left != ROWS + 1 ? ROWS : left > ROWS ? (left + 1) / 2 : left; \
    switch (take) {                                                                                   \
      case 1: { enum { N = 1 < ROWS ? 1 : ROWS }; call; break; }                                      \
      case 2: { enum { N = 2 < ROWS ? 2 : ROWS }; call; break; }                                      \
      case 3: { enum { N = 3 < ROWS ? 3 : ROWS }; call; break; }                                      \
      case 4: { enum { N = 4 < ROWS ? 4 : ROWS }; call; break; }                                      \
      case 5: { enum { N = 5 < ROWS ? 5 : ROWS }; call; break; }                                      \
      default: { enum { N = ROWS }; call; break; }                                                    \
    }                                                                                                 \
    b += take;                                                                                        \
  }

struct Job {
  Index steps, batch, inputs, hidden;
  const float *x;             // [steps, batch, inputs], strides of step and sequence beside
  Index x_step, x_sequence;
  const float *panels;        // packed weights
  const float *bias;          // [4 hidden]
  const float *first_h, *first_c;  // [batch, hidden]
  float *h, *c;               // [steps, batch, hidden], after each step
  float *gates;               // [steps, batch, 4 hidden] after their nonlinearities, or none
  const float *d_out;         // gradient of the output [steps, batch, hidden], strides beside, or none
  Index d_out_step, d_out_sequence;
  const float *d_last_c;      // [batch, hidden] or none
  float *d_x;                 // [steps, batch, inputs] or none
  float *d_h, *d_c;           // [batch, hidden], of the first state
  float *d_weights;           // of this thread: [hidden / LANES][hidden + inputs + 1][WIDTH], the last row the bias
  Index from, to;             // the sequences of this thread
};

// ---------------------------------------------------------------------------------------------------------------- forward

INLINE const float *before(const float *first, const float *all, const Job &job, Index t) {
  return t ? all + (t - 1) * job.batch * job.hidden : first;
}

INLINE void cells(const int rows, const Job &job, Index t, Index b, Index unit, const float *panel) {
  const Index hidden = job.hidden, layer = job.batch * hidden;
  Lanes sum[ROWS][GATES];
#pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int gate = 0; gate < GATES; gate++) sum[r][gate] = load(job.bias + gate * hidden + unit);
  product(rows, GATES, sum, before(job.first_h, job.h, job, t) + b * hidden, hidden, 1, hidden, panel);
  product(rows, GATES, sum, job.x + t * job.x_step + b * job.x_sequence, job.x_sequence, 1, job.inputs,
          panel + hidden * WIDTH);
#pragma GCC unroll 6
  for (int r = 0; r < rows; r++) {
    const Lanes i = sigmoid(sum[r][0]), f = sigmoid(sum[r][1]), g = tangent(sum[r][2]), o = sigmoid(sum[r][3]);
    const Index at = (b + r) * hidden + unit;
    const Lanes c = f * load(before(job.first_c, job.c, job, t) + at) + i * g;
    store(job.c + t * layer + at, c);
    store(job.h + t * layer + at, o * tangent(c));
    if (job.gates) {
      float *to = job.gates + (t * job.batch + b + r) * GATES * hidden + unit;
      store(to, i), store(to + hidden, f), store(to + 2 * hidden, g), store(to + 3 * hidden, o);
    }
  }
}

static void forward(const Job &job) {
  const Index panel = (job.hidden + job.inputs) * WIDTH;
  for (Index t = 0; t < job.steps; t++)
    for (Index unit = 0; unit < job.hidden; unit += LANES)
      BY_ROWS(job.from, job.to, cells(N, job, t, b, unit, job.panels + unit / LANES * panel))
}

// --------------------------------------------------------------------------------------------------------------- backward

// Gradients of the sums of a step's gates, into d [hidden / LANES][rows][WIDTH]; d_c becomes that of the step before.
INLINE void cells_backward(const Job &job, Index t, const float *d_h, float *d_c, float *d) {
  const Index hidden = job.hidden, layer = job.batch * hidden, rows = job.to - job.from;
  for (Index unit = 0; unit < hidden; unit += LANES) {
    float *bias = job.d_weights + (unit / LANES + 1) * (hidden + job.inputs + 1) * WIDTH - WIDTH;
    Lanes sum_i = load(bias), sum_f = load(bias + LANES), sum_g = load(bias + 2 * LANES), sum_o = load(bias + 3 * LANES);
    for (Index row = 0; row < rows; row++, d += WIDTH) {
      const Index b = job.from + row, at = row * hidden + unit, cell = b * hidden + unit;
      const float *gates = job.gates + (t * job.batch + b) * GATES * hidden + unit;
      const Lanes i = load(gates), f = load(gates + hidden), g = load(gates + 2 * hidden), o = load(gates + 3 * hidden);
      const Lanes c_before = load(before(job.first_c, job.c, job, t) + cell), tanh_c = tangent(load(job.c + t * layer + cell));
      Lanes of_h = load(d_h + at);
      if (job.d_out) of_h += load(job.d_out + t * job.d_out_step + b * job.d_out_sequence + unit);
      const Lanes of_c = load(d_c + at) + of_h * o * (1.0f - tanh_c * tanh_c);
      const Lanes d_i = of_c * g * i * (1.0f - i), d_f = of_c * c_before * f * (1.0f - f);
      const Lanes d_g = of_c * i * (1.0f - g * g), d_o = of_h * tanh_c * o * (1.0f - o);
      store(d, d_i), store(d + LANES, d_f), store(d + 2 * LANES, d_g), store(d + 3 * LANES, d_o);
      sum_i += d_i, sum_f += d_f, sum_g += d_g, sum_o += d_o;
      store(d_c + at, of_c * f);
    }
    store(bias, sum_i), store(bias + LANES, sum_f), store(bias + 2 * LANES, sum_g), store(bias + 3 * LANES, sum_o);
  }
}

// Rows b.. of the product of d with the weights: gradients of h and x, `vectors` vectors of columns of `to`.
INLINE void inputs_backward(const int rows, const int vectors, const Job &job, const float *d, Index b, float *to,
                            Index of_row, const float *panel) {
  const Index block = (job.to - job.from) * WIDTH;
  Lanes sum[ROWS][GATES] = {};
  for (Index unit = 0; unit < job.hidden; unit += LANES, d += block, panel += WIDTH * vectors * LANES)
    product(rows, vectors, sum, d + b * WIDTH, WIDTH, 1, WIDTH, panel);
#pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) store(to + (b + r) * of_row + v * LANES, sum[r][v]);
}

// Adds the products of columns n.. of a [sequences, ...] with d [sequences][WIDTH] to the gradients of the weights.
INLINE void weights_backward(const int rows, const float *a, Index of_sequence, Index sequences, const float *d,
                             float *to) {
  Lanes sum[ROWS][GATES];
#pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < GATES; v++) sum[r][v] = load(to + r * WIDTH + v * LANES);
  product(rows, GATES, sum, a, 1, of_sequence, sequences, d);
#pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < GATES; v++) store(to + r * WIDTH + v * LANES, sum[r][v]);
}

static Index columns(const Job &job) {  // of h, and of x where its gradient is asked for, filled up
  return job.hidden + (job.d_x ? (job.inputs + LANES - 1) / LANES * LANES : 0);
}

static void backward(const Job &job) {
  const Index hidden = job.hidden, inputs = job.inputs, rows = job.to - job.from, wide = columns(job);
  float *d = allocate(rows * GATES * hidden), *d_in = allocate(rows * wide), *d_h = allocate(rows * hidden);
  float *d_c = allocate(rows * hidden);
  memset(d_h, 0, rows * hidden * 4);
  if (job.d_last_c) memcpy(d_c, job.d_last_c + job.from * hidden, rows * hidden * 4);
  else memset(d_c, 0, rows * hidden * 4);
  for (Index t = job.steps - 1; t >= 0; t--) {
    cells_backward(job, t, d_h, d_c, d);
    const float *h = before(job.first_h, job.h, job, t) + job.from * hidden;
    const float *x = job.x + t * job.x_step + job.from * job.x_sequence;
    for (Index block = 0; block < hidden / LANES; block++) {
      float *to = job.d_weights + block * (hidden + inputs + 1) * WIDTH;
      const float *of = d + block * rows * WIDTH;
      BY_ROWS(0, hidden, weights_backward(N, h + b, hidden, rows, of, to + b * WIDTH))
      BY_ROWS(0, inputs, weights_backward(N, x + b, job.x_sequence, rows, of, to + (hidden + b) * WIDTH))
    }
    const float *panel = job.panels;
    for (Index column = 0; column < wide;) {
      const int vectors = wide - column >= WIDTH ? GATES : 1;
      if (vectors == GATES) BY_ROWS(0, rows, inputs_backward(N, GATES, job, d, b, d_in + column, wide, panel))
      else BY_ROWS(0, rows, inputs_backward(N, 1, job, d, b, d_in + column, wide, panel))
      column += vectors * LANES;
      panel += GATES * hidden * vectors * LANES;
    }
    for (Index row = 0; row < rows; row++) {
      memcpy(d_h + row * hidden, d_in + row * wide, hidden * 4);
      if (job.d_x)
        memcpy(job.d_x + (t * job.batch + job.from + row) * inputs, d_in + row * wide + hidden, inputs * 4);
    }
  }
  memcpy(job.d_h + job.from * hidden, d_h, rows * hidden * 4);
  memcpy(job.d_c + job.from * hidden, d_c, rows * hidden * 4);
  free(d), free(d_in), free(d_h), free(d_c);
}

// ----------------------------------------------------------------------------------------------------------------- calls

static void share(void (*work)(const Job &), const Job &whole, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int n = 0; n < threads; n++) {
    Job job = whole;
    job.from = job.batch * n / threads, job.to = job.batch * (n + 1) / threads;
    if (job.d_weights) job.d_weights += n * (job.hidden / LANES) * (job.hidden + job.inputs + 1) * WIDTH;
    work(job);
  }
}

static int at_work(int threads, Index batch) {
  if (threads > batch) threads = (int)batch;
  return threads < 1 ? 1 : threads;
}

extern "C" int lstm_lanes(void) { return LANES; }

// Fills h and c [steps, batch, hidden], and gates [steps, batch, 4 hidden] if given.
extern "C" void lstm_forward(Index steps, Index batch, Index inputs, Index hidden, const float *x, Index x_step,
                             Index x_sequence, const float *of_input, const float *of_hidden, const float *bias,
                             const float *first_h, const float *first_c, float *h, float *c, float *gates,
                             int threads) {
  float *panels = allocate(hidden * GATES * (hidden + inputs)), *to = panels;
  for (Index unit = 0; unit < hidden; unit += LANES)
    for (Index k = 0; k < hidden + inputs; k++)
      for (int gate = 0; gate < GATES; gate++)
        for (Index n = gate * hidden + unit; n < gate * hidden + unit + LANES; n++)
          *to++ = k < hidden ? of_hidden[n * hidden + k] : of_input[n * inputs + k - hidden];
  Job job = {};
  job.steps = steps, job.batch = batch, job.inputs = inputs, job.hidden = hidden;
  job.x = x, job.x_step = x_step, job.x_sequence = x_sequence, job.panels = panels, job.bias = bias;
  job.first_h = first_h, job.first_c = first_c, job.h = h, job.c = c, job.gates = gates;
  share(forward, job, at_work(threads, batch));
  free(panels);
}

// Gradients of the weights [4 hidden, ...], the bias, the first state, and of x [steps, batch, inputs] if d_x is given.
extern "C" void lstm_backward(Index steps, Index batch, Index inputs, Index hidden, const float *x, Index x_step,
                              Index x_sequence, const float *of_input, const float *of_hidden,
                              const float *first_h, const float *first_c, float *h, float *c, float *gates,
                              const float *d_out, Index d_out_step, Index d_out_sequence,
                              const float *d_last_c, float *d_x, float *d_of_input, float *d_of_hidden, float *d_bias,
                              float *d_h, float *d_c, int threads) {
  threads = at_work(threads, batch);
  Job job = {};
  job.steps = steps, job.batch = batch, job.inputs = inputs, job.hidden = hidden;
  job.x = x, job.x_step = x_step, job.x_sequence = x_sequence, job.h = h, job.c = c, job.gates = gates;
  job.first_h = first_h, job.first_c = first_c, job.d_out = d_out, job.d_out_step = d_out_step, job.d_out_sequence = d_out_sequence, job.d_last_c = d_last_c;
  job.d_x = d_x, job.d_h = d_h, job.d_c = d_c;
  const Index wide = columns(job), rows = hidden + inputs + 1, size = hidden / LANES * rows * WIDTH;
  float *panels = allocate(wide * GATES * hidden), *to = panels;
  for (Index column = 0; column < wide;) {
    const Index width = wide - column >= WIDTH ? WIDTH : LANES;
    for (Index unit = 0; unit < hidden; unit += LANES)
      for (int gate = 0; gate < GATES; gate++)
        for (Index n = gate * hidden + unit; n < gate * hidden + unit + LANES; n++)
          for (Index k = column; k < column + width; k++)
            *to++ = k < hidden ? of_hidden[n * hidden + k] : k - hidden < inputs ? of_input[n * inputs + k - hidden] : 0;
    column += width;
  }
  job.panels = panels;
  job.d_weights = allocate(threads * size);
  memset(job.d_weights, 0, threads * size * 4);
  share(backward, job, threads);
  for (int n = 1; n < threads; n++)
    for (Index at = 0; at < size; at++) job.d_weights[at] += job.d_weights[n * size + at];
  const float *from = job.d_weights;
  for (Index unit = 0; unit < hidden; unit += LANES)
    for (Index k = 0; k < rows; k++)
      for (int gate = 0; gate < GATES; gate++)
        for (Index n = gate * hidden + unit; n < gate * hidden + unit + LANES; n++, from++)
          *(k < hidden ? d_of_hidden + n * hidden + k : k < hidden + inputs ? d_of_input + n * inputs + k - hidden
                                                                            : d_bias + n) = *from;
  free(panels), free(job.d_weights);
}
