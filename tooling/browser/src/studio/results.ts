/** What is made in the page is what is made in Node. */

import { strict as assert } from 'node:assert'
import path from 'node:path'
import {
  inNode,
  recipe,
  type StudioCheck,
  type StudioContext,
  sameBytes,
  sameWeights,
  visit,
} from './harness.ts'
import { perplexityInNode, quantizeInNode, serveStudio } from './site.ts'
import { finished, measure, openDemo, start, step, takeArchive, writeRecipe } from './user.ts'

const METHODS: readonly { name: string; rule: string; args: readonly string[] }[] = [
  {
    name: 'GPTQ, 4 bits',
    rule: 'method: gptq\n    bits: 4',
    args: ['--method', 'gptq', '--bits', '4'],
  },
  {
    name: 'VPTQ, 2.25 bits',
    rule: 'method: vptq\n    bits: 2.25',
    args: ['--method', 'vptq', '--bits', '2.25'],
  },
  {
    name: 'palettes, 3 bits',
    rule: 'method: palettize\n    bits: 3',
    args: ['--method', 'palettize', '--bits', '3'],
  },
]

/** A model of usual size, where MODEL names its folder and CALIBRATION a text; minutes each. */
const LARGER: readonly { name: string; rule: string; args: readonly string[] }[] = [
  ...METHODS.filter(({ name }) => !name.startsWith('palettes')),
  {
    name: 'palettes, 4 bits',
    rule: 'method: palettize\n    bits: 4',
    args: ['--method', 'palettize', '--bits', '4'],
  },
]

/** Arithmetic that rounds differently: the same perplexity to 0.1 %. */
function samePerplexity(taken: string, expected: string, args: readonly string[]): string {
  const [got, want] = [taken, expected].map((folder) => perplexityInNode(folder, args))
  const apart = got / want - 1
  assert.ok(Math.abs(apart) < 1e-3, `${got} instead of ${want}`)
  return `${got.toFixed(4)}, ${want.toFixed(4)} in Node (${(100 * apart).toFixed(3)} %)`
}

/**
 * On one adapter the page and Node run the same shaders, which give the same bytes unless the browser's compiler
 * rounds differently. The CPU's perplexity is told, not asserted: through thirty blocks that each see the errors of
 * those before, GPTQ makes of the last bit of a sum another draw of the same rounding errors, on the CPU alone too.
 */
function sameOnOneAdapter(
  taken: string,
  quantize: (device: string) => string,
  measured: readonly string[],
): string {
  const onAdapter = quantize('webgpu')
  const same = sameBytes(taken, onAdapter)
    ? `the bytes of Node, perplexity ${perplexityInNode(taken, measured).toFixed(4)}`
    : samePerplexity(taken, onAdapter, measured)
  return `${same}; ${perplexityInNode(quantize('cpu'), measured).toFixed(4)} by Node on the CPU`
}

async function quantizeLarger(
  { browser }: StudioContext,
  { rule, args }: (typeof LARGER)[number],
  device?: 'webgpu',
): Promise<string> {
  const { MODEL: model, CALIBRATION: text } = process.env
  if (!model || !text) return 'skipped: MODEL and CALIBRATION name no folder and no text'
  const size = { samples: 2, length: 512 }
  const measured = ['--windows', '4', ...(process.env.TEXT ? ['--text', process.env.TEXT] : [])]
  const site = await serveStudio([model])
  const { page, profile } = await visit(browser, site.url)
  try {
    await page.getByRole('button', { name: path.basename(model), exact: true }).click()
    await page.getByRole('button', { name: 'Choose a recipe' }).waitFor()
    await writeRecipe(page, recipe(rule, size))
    await step(page, 'Run')
    await page.getByLabel('Choose a text file').setInputFiles(text)
    const started = performance.now()
    await start(page, 'result', device)
    await finished(page, 7_200_000)
    const seconds = ((performance.now() - started) / 1000).toFixed(0)
    const taken = await takeArchive(page)
    const flags = ['--samples', `${size.samples}`, '--length', `${size.length}`]
    const quantize = (on: string): string =>
      quantizeInNode(model, [...args, ...flags, '--calibration', text, '--device', on])
    const told = `quantized in ${seconds} s`
    if (device) return `${told}: ${sameOnOneAdapter(taken, quantize, measured)}`
    sameWeights(taken, quantize('cpu'))
    return told
  } finally {
    site.close()
    await profile.close()
  }
}

export const RESULT_CHECKS: readonly StudioCheck[] = [
  ...METHODS.map(({ name, rule, args }) => ({
    name: `${name} on WASM gives the bytes that Node gives`,
    async run({ browser, url }: StudioContext) {
      const { page, profile, complaints } = await visit(browser, url)
      await openDemo(page)
      await writeRecipe(page, recipe(rule))
      await start(page, 'result')
      await finished(page)
      sameWeights(await takeArchive(page), inNode(args))
      assert.deepEqual(complaints, [])
      await profile.close()
    },
  })),
  {
    name: 'GPTQ on WebGPU: perplexity as on WASM to 0.1 %',
    async run({ browser, url }) {
      const { page, profile } = await visit(browser, url)
      const size = { samples: 2, length: 128 }
      await openDemo(page)
      await writeRecipe(page, recipe('method: gptq\n    bits: 4', size))
      await start(page, 'result', 'webgpu')
      await finished(page, 900_000)
      const taken = await takeArchive(page)
      const expected = inNode(['--method', 'gptq', '--bits', '4'], size)
      await profile.close()
      return samePerplexity(taken, expected, ['--windows', '16'])
    },
  },
  {
    name: 'measures what lowbit eval measures',
    async run({ browser, url }) {
      const { page, profile } = await visit(browser, url)
      await openDemo(page)
      await writeRecipe(page, recipe('method: rtn\n    bits: 3'))
      await start(page, 'result')
      await finished(page)
      const got = await measure(page, 4)
      const want = perplexityInNode(await takeArchive(page), ['--windows', '4'])
      assert.ok(Math.abs(got / want - 1) < 1e-4, `${got} instead of ${want}`)
      await profile.close()
    },
  },
  {
    name: 'the chat answers with keys and values kept as cq, once it has learnt its codebooks',
    async run({ browser, url }) {
      const { page, profile, complaints } = await visit(browser, url)
      await openDemo(page)
      await step(page, 'Chat')
      await page.getByLabel('Keys and values', { exact: true }).selectOption('cq')
      await page.getByText('Text that cq is fitted to').waitFor()
      await page.getByLabel('Tokens', { exact: true }).fill('8')
      await page.getByRole('button', { name: 'Ask' }).click()
      await page.getByText(/tokens a second/).waitFor({ timeout: 120_000 })
      assert.deepEqual(complaints, [])
      await profile.close()
    },
  },
  ...LARGER.map((method) => ({
    name: `a larger model by ${method.name} on WASM: the bytes of Node`,
    run: (context: StudioContext) => quantizeLarger(context, method),
  })),
  ...LARGER.map((method) => ({
    name: `a larger model by ${method.name} on WebGPU: what Node gives on the same adapter`,
    run: (context: StudioContext) => quantizeLarger(context, method, 'webgpu'),
  })),
]
