import {
  definePlugin,
  LowbitError,
  type OptionsSchema,
  packCodes,
  type Quantizer,
  scalarOptions,
  toNumbers,
  unsignedGrid,
} from '@lowbit/core'
import { describeQuantizer } from './quantizer.ts'

/** A schema of one option, without a schema library. */
const shape = { bits: scalarOptions.bits }
const options = {
  shape,
  strict: () => ({
    safeParse(given: Record<string, unknown>) {
      const keys = Object.keys(given).filter((key) => key !== 'bits')
      if (keys.length === 0) return { success: true, data: { bits: 4, ...given } }
      return { success: false, error: { issues: [{ code: 'unrecognized_keys', keys }] } }
    },
  }),
} as unknown as OptionsSchema

/** The smallest honest quantizer: one range for the whole matrix. */
const simplest = definePlugin({ name: 'simplest', summary: 'for this test', options }, (given) => {
  const bits = given.bits as number
  return {
    kind: 'quantizer',
    name: 'simplest',
    options: given,
    needs: {},
    label: `${bits} bits`,
    async quantize({ kernels, weight, name, signal }) {
      signal?.throwIfAborted()
      const { rows, columns } = weight
      const w = await kernels.read(weight)
      const low = w.reduce((least, x) => Math.min(least, x), 0)
      const high = w.reduce((most, x) => Math.max(most, x), 0)
      if (!w.every(Number.isFinite)) throw new LowbitError('not-finite', `${name} is not finite`)
      const scale = Math.fround((high - low) / (2 ** bits - 1)) || 1
      const zero = Math.round(-low / scale)
      const top = 2 ** bits - 1
      const codes = w.map((x) => Math.min(top, Math.max(0, Math.round(x / scale) + zero)))
      const blocks = { rows, columns }
      return {
        rows,
        columns,
        stages: [
          {
            codes: packCodes(codes, bits),
            vector: { length: 1, along: 'in' },
            grid: unsignedGrid(bits),
            scale: { blocks, values: toNumbers('f32', [scale]) },
            zero: { blocks, values: toNumbers('u8', [zero]) },
          },
        ],
      }
    },
  } satisfies Quantizer
})

describeQuantizer(simplest, { variants: [{}, { bits: 3 }] })
