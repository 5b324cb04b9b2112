/** Soft assignment to entries, weights of equal value, and Adam. */

import { LowbitError, type TrainingKernels } from '@lowbit/core'
import type { Device } from '../device.ts'
import { expect, own } from '../tensors.ts'

const MOST_ENTRIES = 256
const MOST_LENGTH = 16
const MOST_VALUES = 65536

/** Bits that tell values of 11 and of 8 significant bits apart (assembly/distinct.ts). */
const [FINE_BITS, COARSE_BITS] = [19, 16]
/** A bitmap over them, and the values before each of its words. */
const rankBytes = (bits: number): number => 2 * 2 ** (bits - 3)

export function trainingOperations(device: Device): TrainingKernels {
  const { memory } = device
  return {
    softAssign(target, input, entries, { temperature, gumbel }) {
      const x = own(input)
      const table = expect(entries, entries.rows, x.columns, 'table')
      const [k, d] = [table.rows, table.columns]
      if (!(k >= 1 && k <= MOST_ENTRIES && d >= 1 && d <= MOST_LENGTH)) {
        const most = `${MOST_ENTRIES} × ${MOST_LENGTH}`
        throw new LowbitError('bad-shape', `the table is ${k} × ${d}; at most ${most} are possible`)
      }
      if (!(temperature >= 0)) {
        throw new LowbitError('bad-option', `a temperature is 0 or more, not ${temperature}`)
      }
      const out = expect(target, x.rows, k, 'out').at
      // Component by component, padded to whole vectors.
      const stride = Math.ceil(k / 4) * 4
      const turned = device.room('turned table', stride * d * 4) / 4
      for (let j = 0; j < k; j++) {
        for (let e = 0; e < d; e++) {
          memory.f32[turned + e * stride + j] = memory.f32[table.at / 4 + j * d + e]
        }
      }
      device.run(
        'softAssign',
        x.rows * k * (d + 8),
        ...[out, x.at, x.rows, d, turned * 4, k, stride],
        ...[temperature > 0 ? 1 / temperature : 0, gumbel === undefined ? 0 : 1, gumbel ?? 0],
      )
    },

    softmaxGradient(target, probabilities, given, factor) {
      const { at, rows, columns } = own(probabilities)
      const gradient = expect(given, rows, columns, 'the gradient').at
      const out = expect(target, rows, columns, 'out').at
      device.run('softmaxGradient', rows * columns * 2, out, at, gradient, rows, columns, factor)
    },

    async distinct(values, counts, codes, input) {
      const { at, rows, columns } = own(input)
      const size = rows * columns
      const most = Math.min(MOST_VALUES, size)
      const out = expect(values, most, 1, 'values').at
      const numbers = expect(counts, most, 1, 'counts').at
      const c = expect(codes, rows, columns, 'codes', 'u16').at
      const scratch = device.room('distinct', rankBytes(FINE_BITS))
      const found = (bits: number): number =>
        device.run('distinct', 0, out, numbers, c, at, size, bits, scratch, most)
      const fine = found(FINE_BITS)
      return fine <= most ? fine : found(COARSE_BITS)
    },

    adam(target, mean, square, given, { step, rate, beta1 = 0.9, beta2 = 0.95 }) {
      const { at, rows, columns } = own(target)
      const [m, v, g] = [mean, square, given].map(
        (tensor) => expect(tensor, rows, columns, 'moments and gradient').at,
      )
      const size = rows * columns
      const length = rate / (1 - beta1 ** step)
      const spread = 1 / (1 - beta2 ** step)
      device.run('adam', size * 4, at, m, v, g, size, beta1, beta2, length, spread)
    },
  }
}
