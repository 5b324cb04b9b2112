/** Shaders that make codes of numbers. */

import { bestOf, elementwise, groupwise, remembered, type Shader } from '../gpu/shader.ts'

/** f16 by its bits, rounded half to even, since devices may round a conversion either way; the largest at most. */
export const HALF = `
fn half_bits(x: f32) -> u32 {
  let size = min(abs(x), 65504.0);
  let bits = bitcast<u32>(size);
  var half = ((bits + 0xfffu + ((bits >> 13u) & 1u)) >> 13u) - 0x1c000u;
  if (size < 6.103515625e-5) { half = u32(round(size * 16777216.0)); }
  return half | ((bitcast<u32>(x) >> 16u) & 0x8000u);
}
fn half_value(half: u32) -> f32 {
  var size = bitcast<f32>(((half & 0x7fffu) << 13u) + 0x38000000u);
  if ((half & 0x7c00u) == 0u) { size = f32(half & 0x3ffu) / 16777216.0; }
  return select(size, -size, half >= 0x8000u);
}`

const shaders = new Map<string, Shader>()

/** Scales of the blocks, and each number's code in a word. Ranges are those of numbers that no flag sets apart. */
export const codeRows = (apart: boolean): Shader =>
  remembered(shaders, `code ${apart}`, () =>
    groupwise(apart ? 'code rows but for outliers' : 'code rows', {
      reads: { x: 'f32', values: 'f32', ...(apart && { flags: 'u32' }) },
      writes: { scales: 'u32', codes: 'u32' },
      params: {
        ...{ width: 'u32', tokens: 'u32', channels: 'u32', levels: 'u32', symmetric: 'u32' },
        ...{ tabled: 'u32', reach: 'f32', cut: 'f32' },
      },
      functions: HALF,
      body: `
  let blocks = p.width / p.channels;
  let top = (group / blocks) * p.tokens;
  let left = (group % blocks) * p.channels;
  let count = p.tokens * p.channels;
  var low = 3.4e38;
  var high = -3.4e38;
  for (var i = lane; i < count; i += lanes) {
    let place = (top + i / p.channels) * p.width + left + i % p.channels;
    ${apart ? 'if (flags[p.flags_at + place] == 1u) { continue; }' : ''}
    let value = x[p.x_at + place];
    low = min(low, value);
    high = max(high, value);
  }
  var lowest = -most_of(lane, -low);
  var highest = most_of(lane, high);
  // A block of outliers alone has no range.
  if (lowest > highest) { lowest = 0.0; highest = 0.0; }
  let least = lowest + p.cut * (highest - lowest);
  let most = highest - p.cut * (highest - lowest);
  var span = (most - least) / f32(p.levels);
  if (p.symmetric == 1u) { span = max(-least, most) / p.reach; }
  else if (p.tabled == 1u) { span = most - least; }
  let line = p.scales_at + (group / blocks) * blocks * (2u - p.symmetric) + group % blocks;
  let scale = half_value(half_bits(span));
  var bias = 0.0;
  if (p.symmetric == 0u) { bias = half_value(half_bits(least)); }
  if (lane == 0u) {
    scales[line] = half_bits(span);
    if (p.symmetric == 0u) { scales[line + blocks] = half_bits(least); }
  }
  for (var i = lane; i < count; i += lanes) {
    let place = (top + i / p.channels) * p.width + left + i % p.channels;
    let value = clamp(x[p.x_at + place], lowest, highest);
    var best = 0u;
    if (scale > 0.0) {
      if (p.tabled == 1u) {
        var distance = 3.4e38;
        for (var c = 0u; c <= p.levels; c++) {
          let away = abs(value - bias - scale * values[p.values_at + c]);
          if (away < distance) { distance = away; best = c; }
        }
      } else {
        var aim = (value - bias) / scale;
        if (p.symmetric == 1u) { aim += f32(p.levels) * 0.5; }
        // Of two equally near codes the smaller.
        best = u32(clamp(ceil(aim - 0.5), 0.0, f32(p.levels)));
      }
    }
    codes[p.codes_at + place] = best;
  }`,
    }),
  )

/** The mean of each block. */
export const blockMeans = groupwise('means of blocks', {
  reads: { x: 'f32' },
  writes: { means: 'f32' },
  params: { width: 'u32', tokens: 'u32', channels: 'u32' },
  body: `
  let blocks = p.width / p.channels;
  let first = (group / blocks) * p.tokens * p.width + (group % blocks) * p.channels;
  let count = p.tokens * p.channels;
  var sum = 0.0;
  for (var i = lane; i < count; i += lanes) {
    sum += x[p.x_at + first + (i / p.channels) * p.width + i % p.channels];
  }
  sum = total_of(lane, sum);
  if (lane == 0u) { means[p.means_at + group] = sum / f32(count); }`,
})

/**
 * Of each row the `count` numbers that are farthest from the mean of their block: a flag for each of its numbers, and
 * their columns, ascending.
 */
export const findOutliers = groupwise('find outliers', {
  reads: { x: 'f32', means: 'f32' },
  writes: { flags: 'u32', list: 'u32' },
  params: { width: 'u32', tokens: 'u32', channels: 'u32', count: 'u32' },
  functions: bestOf(64),
  body: `
  let line = group * p.width;
  let block = p.means_at + (group / p.tokens) * (p.width / p.channels);
  for (var i = lane; i < p.width; i += lanes) { flags[p.flags_at + line + i] = 0u; }
  for (var n = 0u; n < p.count; n++) {
    var most = -2.0;
    var place = p.width;
    for (var i = lane; i < p.width; i += lanes) {
      let away = abs(x[p.x_at + line + i] - means[block + i / p.channels]);
      // Numbers that are none are the last to be taken.
      let far = select(-1.0, away, away >= 0.0);
      if (flags[p.flags_at + line + i] == 0u && far > most) { most = far; place = i; }
    }
    reduced[lane] = -most;
    places[lane] = place;
    let best = best_of(lane, 0u);
    workgroupBarrier();
    if (best % lanes == lane) { flags[p.flags_at + line + best] = 1u; }
  }
  storageBarrier();
  workgroupBarrier();
  if (lane == 0u) {
    var to = p.list_at + group * p.count;
    for (var i = 0u; i < p.width; i++) {
      if (flags[p.flags_at + line + i] == 1u) { list[to] = i; to++; }
    }
  }`,
})

/** The nearest entry of a codebook for each vector, of equal ones the first; its index in a word. */
export const nearestEntries = elementwise('nearest entries', {
  reads: { x: 'f32', codebooks: 'f32' },
  writes: { codes: 'u32' },
  params: { vectors: 'u32', coupled: 'u32', entries: 'u32' },
  body: `
  let vector = p.x_at + i * p.coupled;
  var entry = p.codebooks_at + (i % p.vectors) * p.entries * p.coupled;
  var least = 3.4e38;
  var best = 0u;
  for (var code = 0u; code < p.entries; code++) {
    var distance = 0.0;
    for (var e = 0u; e < p.coupled; e++) {
      let away = x[vector + e] - codebooks[entry + e];
      distance += away * away;
    }
    if (distance < least) { least = distance; best = code; }
    entry += p.coupled;
  }
  codes[p.codes_at + i] = best;`,
})

/** Words of a row, each from the codes that lie in it. */
export const packCodes = elementwise('pack codes', {
  reads: { codes: 'u32' },
  writes: { out: 'u32' },
  params: { width: 'u32', bits: 'u32', line: 'u32' },
  body: `
  let first = (i % p.line) * 32u;
  let last = min(p.width, (first + 31u) / p.bits + 1u);
  var word = 0u;
  for (var column = first / p.bits; column < last; column++) {
    let code = codes[p.codes_at + (i / p.line) * p.width + column];
    let begin = column * p.bits;
    if (begin >= first) { word |= code << (begin - first); } else { word |= code >> (first - begin); }
  }
  out[p.out_at + i] = word;`,
})

export const packHalves = elementwise('pack halves', {
  reads: { x: 'f32' },
  writes: { out: 'u32' },
  params: {},
  functions: HALF,
  body: `
  let first = p.x_at + i * 2u;
  out[p.out_at + i] = half_bits(x[first]) | (half_bits(x[first + 1u]) << 16u);`,
})
