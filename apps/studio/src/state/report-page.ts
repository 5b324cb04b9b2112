/** A page of its own that says how a checkpoint was made and what it lost. */

import { bytes, percent, plotBits, plotErrors } from '@lowbit/inspection'
import type { PlotOptions } from '@observablehq/plot'
import type { Comparison, ModelFacts } from '../engine/protocol.ts'

export interface ReportInput {
  readonly result: ModelFacts
  readonly original?: ModelFacts
  readonly recipe: string
  readonly comparison?: Comparison
}

export async function reportPage({
  result,
  original,
  recipe,
  comparison,
}: ReportInput): Promise<string> {
  const Plot = await import('@observablehq/plot')
  const { report, config } = result
  if (!report) throw new Error('the result has no report')
  const { modules, bitsPerWeight } = report
  const shape = { config, location: result.name }
  const reported = new Map(modules.map((one) => [one.module, one]))
  const picture = (options: PlotOptions): string =>
    Plot.plot({ width: 900, height: 460, marginTop: 70, marginLeft: 70, ...options }).outerHTML
  const facts: [string, string][] = [
    ['bits per weight', `${bitsPerWeight.toFixed(4)} (counted)`],
    ['size', bytes(report.bytes) + (original ? ` of ${bytes(original.bytes)}` : '')],
    ['calibration', `${report.calibrationTokens} tokens`],
    ...(comparison
      ? ([
          [
            'perplexity',
            `${comparison.referencePerplexity.toFixed(3)} → ${comparison.perplexity.toFixed(3)} on ${comparison.tokens} tokens`,
          ],
          ['KL', `${comparison.kl.toFixed(4)} nats a token`],
        ] as [string, string][])
      : []),
  ]
  const rows = modules.map(
    ({ module, label, rows, columns, bits, error }) =>
      `<tr><td>${escaped(module)}<td>${rows} × ${columns}<td>${escaped(label)}<td>${bits.toFixed(4)}<td>${percent(error)}`,
  )
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>${escaped(result.name)}</title>
<style>body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:left;border-bottom:1px solid #ddd}pre{background:#f4f4f4;padding:1rem;overflow:auto}svg{max-width:100%;height:auto}</style>
<h1>${escaped(result.name)}</h1>
<p>${original ? `Made of ${escaped(original.name)}` : 'Made'} with lowbit.</p>
<table>${facts.map(([name, value]) => `<tr><th>${name}<td>${escaped(value)}`).join('')}</table>
${picture(plotErrors({ Plot }, result.name, shape, reported))}
${picture(plotBits({ Plot }, result.name, shape, { bitsPerWeight, tensors: modules }))}
<h2>Recipe</h2><pre>${escaped(recipe)}</pre>
<h2>Matrices</h2><table><tr><th>matrix<th>shape<th>method<th>bits<th>lost${rows.join('')}</table>
</html>
`
}

const escaped = (text: string): string =>
  text.replace(/[&<>]/g, (sign) => (sign === '&' ? '&amp;' : sign === '<' ? '&lt;' : '&gt;'))
