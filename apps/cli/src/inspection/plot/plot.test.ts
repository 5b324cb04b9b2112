/** Pictures of the demo, quantized in a few ways. */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { parseHTML } from 'linkedom'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { errorOf, runCli, runJson, temporaryFolder } from '../../testing/run-cli.ts'

const folder = mkdtempSync(path.join(os.tmpdir(), 'lowbit-plot-'))
const made = {
  palette: ['--method', 'palettize', '--bits', '3', '--importance', 'none'],
  palettes: [
    ...['--method', 'palettize', '--bits', '2', '--importance', 'none'],
    ...['--granularity', 'per-grouped-channel'],
  ],
  integer: ['--method', 'rtn', '--bits', '4'],
  singles: ['--method', 'pq', '--vector-length', '1', '--centroids', '8'],
  codebook: ['--method', 'pq', '--vector-length', '2', '--centroids', '64'],
}
type Name = keyof typeof made
const model = (name: Name): string => path.join(folder, name)
const MODULE = 'layers.0.mlp.down_proj'

beforeAll(async () => {
  for (const [name, options] of Object.entries(made)) {
    const out = model(name as Name)
    const { code, stderr } = await runCli(['quantize', 'demo', ...options, '--out', out])
    expect([code, stderr]).toEqual([0, expect.any(String)])
  }
}, 120_000)

afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Draws; gives the picture as a document, and its words. */
async function draw(what: string, ...words: string[]) {
  const out = path.join(temporaryFolder(), 'picture.svg')
  const { code, json, stderr } = await runJson(['inspect', ...words, '--plot', what, '--out', out])
  expect([code, stderr]).toEqual([0, ''])
  const text = readFileSync(out, 'utf8')
  expect(text).toMatch(/^<\?xml [^>]*\?>\n<svg [^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/)
  expect(text).not.toMatch(/NaN|undefined/)
  const { document } = parseHTML(text)
  const count = (selector: string): number => document.querySelectorAll(selector).length
  return { json, count, words: document.documentElement.textContent }
}

const RULES = 'g[aria-label="rule"][stroke="#d62728"] line'
const BARS = 'g[aria-label="rect"] rect'

describe('a matrix', () => {
  it('has its palette over how often each code is used', async () => {
    const { json, count, words } = await draw(MODULE, model('palette'))
    expect(json.plot).toBe(`model.${MODULE}`)
    expect(count('g[aria-label="dot"] circle')).toBe(8)
    expect(count(RULES)).toBe(8)
    expect(words).toContain('share of weights')
    expect(words).toContain('256 × 768, 8 values')
  })

  it.each([
    ['palette', 8],
    ['integer', 16],
    ['palettes', 16 * 4],
    ['singles', 8],
  ] as const)('has the %s over the weights of the original', async (name, values) => {
    const { count, words } = await draw(MODULE, model(name), '--reference', 'demo')
    expect(count(RULES)).toBe(values)
    expect(count(BARS)).toBeGreaterThan(100)
    expect(words).toContain('weights of demo')
    expect(words).toContain(name === 'integer' ? 'units' : 'weight')
  })

  it('has the entries of a codebook as points', async () => {
    const { count, words } = await draw(`model.${MODULE}`, model('codebook'))
    expect(count('g[aria-label="dot"] circle')).toBeGreaterThan(60)
    expect(words).toContain('second weight')
  })

  it('that is dense has a histogram', async () => {
    const { count } = await draw(MODULE, 'demo')
    expect(count(BARS)).toBeGreaterThan(100)
    expect(count(RULES)).toBe(0)
  })
})

describe('a model', () => {
  it.each(['errors', 'bits'])('has %s by layer, a line for each role', async (what) => {
    const { count, words } = await draw(what, model('palette'))
    expect(count('g[aria-label="line"] path')).toBe(7)
    // Six layers, and the legend.
    expect(count('g[aria-label="dot"] circle')).toBe(7 * 6 + 7)
    for (const role of ['q', 'k', 'v', 'o', 'gate', 'up', 'down']) expect(words).toContain(role)
  })

  it('without a report has no errors to draw', async () => {
    const words = ['inspect', 'demo', '--plot', 'errors', '--out', 'never.svg']
    expect(await errorOf(words)).toMatchObject({ code: 'no-report', option: 'plot' })
  })

  it('with a damaged report says so', async () => {
    const broken = path.join(temporaryFolder(), 'broken')
    await runCli(['quantize', 'demo', '--method', 'rtn', '--out', broken])
    for (const text of ['{', '{"modules": [{"module": 1}]}']) {
      writeFileSync(path.join(broken, 'quantization-report.json'), text)
      const words = ['inspect', broken, '--plot', 'errors', '--out', 'never.svg']
      expect(await errorOf(words)).toMatchObject({ code: 'bad-report' })
    }
  })
})

describe('refuses', () => {
  const plot = (...words: string[]) => errorOf(['inspect', model('palette'), ...words])

  it('modules that are not there, or could be several', async () => {
    const unknown = await plot('--plot', 'layers.99.mlp', '--out', 'never.svg')
    expect(unknown).toMatchObject({ code: 'bad-option', option: 'plot' })
    expect(unknown.message).toMatch(/no such module.*model\.layers\.0/)
    const several = await plot('--plot', 'mlp.down_proj', '--out', 'never.svg')
    expect(several.message).toMatch(
      /any of 6 modules: model\.layers\.0\.mlp\.down_proj, .*write more/,
    )
  })

  it('flags that do not go together', async () => {
    expect(await plot('--plot', MODULE)).toMatchObject({ option: 'out' })
    expect(await plot('--out', 'never.svg')).toMatchObject({ option: 'out' })
    expect(await plot('--reference', 'demo')).toMatchObject({ option: 'reference' })
    const bits = await plot('--plot', 'bits', '--out', 'never.svg', '--reference', 'demo')
    expect(bits).toMatchObject({ option: 'reference' })
    const vectors = ['--plot', MODULE, '--out', 'never.svg', '--reference', 'demo']
    expect(await errorOf(['inspect', model('codebook'), ...vectors])).toMatchObject({
      option: 'reference',
      message: expect.stringContaining('codebooks'),
    })
  })

  it('names that do not end in .svg, and files that are there', async () => {
    for (const out of ['picture.png', 'picture', '.svg']) {
      expect(await plot('--plot', MODULE, '--out', out)).toMatchObject({ option: 'out' })
    }
    const out = path.join(temporaryFolder(), 'there.svg')
    writeFileSync(out, 'mine')
    expect(await plot('--plot', MODULE, '--out', out)).toMatchObject({ code: 'exists' })
    expect(readFileSync(out, 'utf8')).toBe('mine')
    const words = ['inspect', model('palette'), '--plot', MODULE, '--out', out, '--overwrite']
    expect((await runCli(words)).code).toBe(0)
    expect(readFileSync(out, 'utf8')).toContain('<svg')
  })

  it('to draw without the packages that draw, and says how to get them', async () => {
    const hook = `import { registerHooks } from 'node:module'
      registerHooks({ resolve(name, context, next) {
        if (name !== 'linkedom') return next(name, context)
        throw Object.assign(new Error('not installed'), { code: 'ERR_MODULE_NOT_FOUND' })
      } })`
    const options = `--import=data:text/javascript,${encodeURIComponent(hook)}`
    const words = ['inspect', 'demo', '--plot', MODULE, '--out', 'never.svg']
    const { code, json } = await runJson(words, { env: { NODE_OPTIONS: options } })
    expect(code).toBe(1)
    expect(json.error).toMatchObject({
      code: 'missing-package',
      message: expect.stringContaining('npm install @observablehq/plot linkedom'),
    })
  })
})
