/** Round to nearest: every weight to the nearest value of its grid, nothing but the weight itself needed. */

import {
  assertFinite,
  blockGrid,
  definePlugin,
  packCodes,
  type QuantizedMatrix,
  type QuantizeInput,
  type Quantizer,
  type ScalarScheme,
  scalarOptions,
  scalarScheme,
  schemeBlocks,
  storeScale,
  storeZero,
} from '@lowbit/core'
import * as z from 'zod'

export const rtnOptions = z.object({
  ...scalarOptions,
  search: z
    .int()
    .min(1)
    .max(200)
    .optional()
    .describe(
      'clipping factors tried for the smallest squared error; 1 takes the range as it is (default 40; 1 for MX, whose scale is defined)',
    ),
  searchStep: z
    .number()
    .min(0.001)
    .max(0.5)
    .default(0.02)
    .describe('step between clipping factors'),
})

export const rtn = definePlugin(
  {
    name: 'rtn',
    summary: 'round to nearest, in any number format; no calibration',
    source:
      'Jacob et al. 1712.05877; NF4: 2305.14314; MX: OCP Microscaling 1.0; NVFP4: NVIDIA Blackwell',
    options: rtnOptions,
  },
  (options): Quantizer => {
    const scheme = scalarScheme('rtn', options)
    const candidates = options.search ?? (scheme.fitType === 'f8_e8m0' ? 1 : 40)
    return {
      kind: 'quantizer',
      name: 'rtn',
      options,
      needs: {},
      label: scheme.label,
      quantize: (input) => roundToNearest(input, scheme, candidates, options.searchStep),
    }
  },
)

async function roundToNearest(
  { kernels, weight, name, signal }: QuantizeInput,
  scheme: ScalarScheme,
  candidates: number,
  step: number,
): Promise<QuantizedMatrix> {
  signal?.throwIfAborted()
  await assertFinite(kernels, weight, name)
  const { rows, columns } = weight
  const { grid, asymmetric, bits, fitType } = scheme
  const blocks = schemeBlocks(scheme, rows, columns)
  const across = blockGrid(blocks, rows, columns)
  const rounding = { grid, blockRows: blocks.rows, blockColumns: blocks.columns }
  const scale = kernels.tensor(across.rows, across.columns)
  const zero = asymmetric ? kernels.tensor(across.rows, across.columns) : undefined
  const codes = kernels.tensor(rows, columns, 'u8')
  try {
    kernels.fit(scale, zero, weight, {
      ...rounding,
      asymmetric,
      search: { candidates, step },
      scaleType: fitType,
    })
    const stored = storeScale(
      scheme,
      blocks,
      await kernels.read(scale),
      across.rows,
      across.columns,
    )
    if (scheme.nested !== 'none') kernels.write(scale, stored.values)
    kernels.round(codes, undefined, weight, scale, zero, rounding)
    return {
      rows,
      columns,
      stages: [
        {
          codes: packCodes(await kernels.readCodes(codes), bits),
          vector: { length: 1, along: 'in' },
          grid,
          scale: stored.scale,
          ...(zero && { zero: storeZero(bits, blocks, await kernels.read(zero)) }),
        },
      ],
    }
  } finally {
    kernels.free(scale, codes)
    if (zero) kernels.free(zero)
  }
}
