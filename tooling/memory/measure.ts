/** One run in a process of its own: quantizes the folder and prints the process's peak memory. */

import { FORMATS, openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { parseRecipe, quantizeModel } from '@lowbit/pipeline'
import { gptq } from '@lowbit/quantizer-gptq'
import { rtn } from '@lowbit/quantizer-rtn'

const [folder, out, method] = process.argv.slice(2)
const rules =
  method === 'gptq'
    ? [
        { match: 'model.layers.0.**', method: 'gptq', bits: 4 },
        { method: 'rtn', bits: 4 },
      ]
    : [{ method: 'rtn', bits: 4 }]
const kernels = await cpu({ wide: true })
const checkpoint = await openFolder(nodeFolder(folder))
const started = performance.now()
const report = await quantizeModel({
  checkpoint,
  kernels,
  recipe: parseRecipe({ rules }),
  quantizers: [rtn, gptq],
  format: FORMATS.find(({ name }) => name === 'lowbit')!,
  calibration: Array.from({ length: 8 }, (_, w) =>
    Array.from({ length: 512 }, (_, i) => (w * 7919 + i * 31) % 32_000),
  ),
  folder: nodeFolder(out),
})
kernels.dispose()
await checkpoint.close()
console.log(
  JSON.stringify({
    bitsPerWeight: report.bitsPerWeight,
    seconds: (performance.now() - started) / 1000,
    peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
  }),
)
