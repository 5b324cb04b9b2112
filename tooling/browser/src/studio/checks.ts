/** The studio in headless Chromium, as people use it. Each check gets a fresh browser profile. */

import { strict as assert } from 'node:assert'
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { AxeBuilder } from '@axe-core/playwright'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { launch } from '../chromium.ts'
import { perplexityInNode, quantizeInNode, serveStatic, serveStudio } from './site.ts'
import {
  errorShown,
  finished,
  measure,
  openDemo,
  start,
  step,
  takeArchive,
  writeRecipe,
} from './user.ts'

export interface StudioContext {
  readonly executable: string
  readonly browser: Browser
  /** Of `lowbit studio`. */
  readonly url: string
  /** Where screenshots go. */
  readonly pictures: string
}

interface StudioCheck {
  readonly name: string
  /** What it gives, if anything, is printed behind its name. */
  run(context: StudioContext): Promise<unknown>
}

const SMALL = { samples: 4, length: 256 }
const recipe = (rule: string, { samples, length } = SMALL): string =>
  `rules:\n  - ${rule}\ncalibration: { samples: ${samples}, length: ${length} }\n`
const inNode = (args: readonly string[], { samples, length } = SMALL): string =>
  quantizeInNode('demo', [...args, '--samples', `${samples}`, '--length', `${length}`])

/** A page in a profile of its own; what it complains about is an error. */
async function visit(
  browser: Browser,
  url: string,
  options: Parameters<Browser['newContext']>[0] = {},
): Promise<{ page: Page; profile: BrowserContext; complaints: string[] }> {
  const profile = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
  const page = await profile.newPage()
  const complaints: string[] = []
  page.on('pageerror', (error) => complaints.push(error.message))
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text())
  })
  await page.goto(url)
  await page.getByText(/WASM: \d/).waitFor()
  return { page, profile, complaints }
}

const weights = (folder: string): Buffer => readFileSync(path.join(folder, 'model.safetensors'))

function sameWeights(taken: string, expected: string): void {
  assert.ok(weights(taken).equals(weights(expected)), 'the weights are not those that Node makes')
}

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

async function quantizeLarger(
  { browser }: StudioContext,
  { rule, args }: (typeof LARGER)[number],
): Promise<string> {
  const { MODEL: model, CALIBRATION: text } = process.env
  if (!model || !text) return 'skipped: MODEL and CALIBRATION name no folder and no text'
  const size = { samples: 2, length: 512 }
  const site = await serveStudio([model])
  const { page, profile } = await visit(browser, site.url)
  try {
    await page.getByRole('button', { name: path.basename(model), exact: true }).click()
    await page.getByRole('button', { name: 'Choose a recipe' }).waitFor()
    await writeRecipe(page, recipe(rule, size))
    await step(page, 'Run')
    await page.getByLabel('Choose a text file').setInputFiles(text)
    const started = performance.now()
    await start(page, 'result')
    await finished(page, 3_600_000)
    const seconds = (performance.now() - started) / 1000
    const flags = ['--samples', `${size.samples}`, '--length', `${size.length}`]
    const expected = quantizeInNode(model, [...args, ...flags, '--calibration', text])
    sameWeights(await takeArchive(page), expected)
    return `quantized in ${seconds.toFixed(0)} s`
  } finally {
    site.close()
    await profile.close()
  }
}

export const STUDIO_CHECKS: readonly StudioCheck[] = [
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
      const [got, want] = [taken, expected].map((folder) =>
        perplexityInNode(folder, ['--windows', '16']),
      )
      const apart = Math.abs(got / want - 1)
      assert.ok(apart < 1e-3, `${got} instead of ${want}`)
      await profile.close()
      return `${got.toFixed(4)}, ${want.toFixed(4)} on WASM (${(100 * apart).toFixed(3)} %)`
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
    name: 'a job goes on after its tab was closed, to the same bytes',
    async run({ browser, url }) {
      const { page, profile } = await visit(browser, url)
      await openDemo(page)
      await writeRecipe(page, recipe('method: gptq\n    bits: 3'))
      await start(page, 'result')
      await page
        .getByText(/layers\.2\./)
        .first()
        .waitFor()
      await page.close()
      const again = await profile.newPage()
      await again.goto(url)
      await again.getByRole('button', { name: 'Go on' }).click()
      await finished(again)
      sameWeights(await takeArchive(again), inNode(['--method', 'gptq', '--bits', '3']))
      await profile.close()
    },
  },
  {
    name: 'pauses and goes on; cancelling leaves nothing',
    async run({ browser, url }) {
      const { page, profile } = await visit(browser, url)
      await openDemo(page)
      await writeRecipe(page, recipe('method: gptq\n    bits: 3'))
      await start(page, 'result')
      await page
        .getByText(/layers\.1\./)
        .first()
        .waitFor()
      await page.getByRole('button', { name: 'Pause' }).click()
      await page.getByRole('button', { name: 'Go on' }).click()
      await page.getByText(/parts were done before/).waitFor()
      await page.getByRole('button', { name: 'Cancel' }).click()
      await page.getByRole('button', { name: 'Go on' }).waitFor({ state: 'detached' })
      await page.getByRole('button', { name: /^Quantize / }).waitFor()
      const left = await page.evaluate(async () => {
        const root = await (await navigator.storage.getDirectory()).getDirectoryHandle('lowbit')
        const names: string[] = []
        for await (const name of (root as unknown as { keys(): AsyncIterable<string> }).keys())
          names.push(name)
        return names
      })
      assert.deepEqual(left, [])
      await profile.close()
    },
  },
  {
    name: 'one matrix gets a rule of its own on the map, and YAML goes both ways',
    async run({ browser, url }) {
      const { page, profile } = await visit(browser, url)
      await openDemo(page)
      await writeRecipe(page, recipe('method: rtn\n    bits: 3'))
      await page.getByRole('button', { name: 'down of layer 0: 3', exact: true }).click()
      await page.getByRole('button', { name: /Give 1 matrix/ }).click()
      await page.locator('#option-bits').fill('8')
      await page.locator('#option-bits').press('Tab')
      await page.getByRole('button', { name: 'down of layer 0: 8', exact: true }).waitFor()
      const yaml = await page.getByRole('textbox', { name: 'As YAML' }).inputValue()
      assert.match(yaml, /match:\n\s+- model\.layers\.0\.mlp\.down_proj/)
      await page.getByRole('textbox', { name: 'As YAML' }).fill(yaml.replace('bits: 8', 'bits: 6'))
      await page.getByRole('button', { name: 'down of layer 0: 6', exact: true }).waitFor()
      await page
        .getByRole('textbox', { name: 'As YAML' })
        .fill('rules:\n  - method: gptq\n    bits: 99\n')
      await page.getByText(/^gptq: bits: /).waitFor()
      await profile.close()
    },
  },
  {
    name: 'all of it by keyboard',
    async run({ browser, url }) {
      const { page, profile } = await visit(browser, url)
      const press = async (name: string | RegExp, key = 'Enter'): Promise<void> => {
        for (let presses = 0; presses < 80; presses++) {
          await page.keyboard.press('Tab')
          const focused = await page.evaluate(
            () => document.activeElement?.textContent?.replace(/\s+/g, ' ').trim() ?? '',
          )
          if (typeof name === 'string' ? focused === name : name.test(focused)) {
            await page.keyboard.press(key)
            return
          }
        }
        throw new Error(`Tab does not reach ${name}`)
      }
      await press('Use the bundled demo')
      await page.getByRole('button', { name: 'Choose a recipe' }).waitFor()
      await press('Choose a recipe')
      await press(/^4 bits, for everything/, 'ArrowUp')
      await page.getByRole('radio', { name: /^Rounding/, checked: true }).waitFor()
      await press('Go on to Run')
      await press(/^Quantize demo/)
      await finished(page)
      await page.getByRole('tab', { name: 'See' }).focus()
      await page.keyboard.press('ArrowRight')
      await press('Ask')
      await page.getByText(/They part at token|Both say the same/).waitFor()
      await profile.close()
    },
  },
  {
    name: 'axe finds nothing, in either scheme, at any step; nothing is wider than a phone',
    async run({ browser, url, pictures }) {
      const found: string[] = []
      for (const colorScheme of ['light', 'dark'] as const) {
        const { page, profile } = await visit(browser, url, { colorScheme })
        const look = async (name: string): Promise<void> => {
          for (const [size, width] of [
            ['desk', 1280],
            ['phone', 390],
          ] as const) {
            await page.setViewportSize({ width, height: 844 })
            await page.waitForTimeout(100)
            const wide = await page.evaluate(() => document.documentElement.scrollWidth)
            if (wide > width) found.push(`${name}: ${wide} pixels wide on ${width}`)
            await page.screenshot({
              path: path.join(pictures, `${name}-${colorScheme}-${size}.png`),
              fullPage: true,
            })
            const { violations } = await new AxeBuilder({ page }).analyze()
            for (const { id, nodes } of violations) {
              found.push(`${name}, ${colorScheme}, ${size}: ${id}: ${nodes[0].html}`)
            }
          }
          await page.setViewportSize({ width: 1280, height: 900 })
        }
        await openDemo(page)
        await look('1-open')
        await writeRecipe(page, recipe('method: palettize\n    bits: 3'))
        await look('2-recipe')
        await step(page, 'Run')
        await look('3-run')
        await start(page, 'result')
        await finished(page)
        await measure(page, 1)
        await page
          .getByRole('button', { name: /^down of layer 1/ })
          .last()
          .click()
        await page.getByRole('heading', { name: 'Diagonal of its Hessian' }).waitFor()
        await look('4-see')
        await step(page, 'Chat')
        await page.getByRole('button', { name: 'Ask' }).click()
        await page.getByText(/They part at token|Both say the same/).waitFor()
        await look('5-chat')
        await step(page, 'Take')
        await look('6-take')
        await step(page, 'Open')
        await page.getByRole('button', { name: 'Delete result' }).click()
        await page.getByRole('alertdialog').waitFor()
        await look('7-dialog')
        await profile.close()
      }
      assert.deepEqual(found, [])
    },
  },
  {
    name: 'a graphics driver that dies is named, and the job goes on',
    async run({ executable }) {
      // A browser of its own, whose graphics process is killed.
      const doomed = await launch(executable)
      const site = await serveStudio()
      try {
        const { page } = await visit(doomed, site.url)
        await openDemo(page)
        await writeRecipe(page, recipe('method: rtn\n    bits: 4'))
        await start(page, 'result', 'webgpu')
        await page
          .getByText(/layers\.1\./)
          .first()
          .waitFor({ timeout: 120_000 })
        const devtools = await doomed.newBrowserCDPSession()
        await devtools.send('Browser.crashGpuProcess').catch(() => {})
        assert.match(await errorShown(page), /^device-lost/)
        await page.getByRole('button', { name: 'Go on' }).click()
        await page.getByText(/parts were done before/).waitFor({ timeout: 60_000 })
        await finished(page)
      } finally {
        site.close()
        await doomed.close()
      }
    },
  },
  {
    name: 'the check-up finds WASM in order, and says how fast it is',
    async run({ browser, url }) {
      const { page, profile } = await visit(browser, url)
      await page.getByRole('button', { name: 'Check the processor' }).click()
      const panel = page.getByRole('region', { name: 'Check-up' })
      await panel.getByText(/GFLOP/).first().waitFor({ timeout: 300_000 })
      const text = ((await panel.textContent()) ?? '').replace(/\s+/g, ' ')
      assert.match(text, /[1-9]\d\d right, none wrong/)
      await profile.close()
      return /\d+ right/.exec(text)?.[0]
    },
  },
  {
    name: 'a static host without headers: isolated by the service worker, and offline once loaded',
    async run({ browser }) {
      const site = await serveStatic(false)
      const { page, profile } = await visit(browser, site.url)
      await page.waitForFunction(() => globalThis.crossOriginIsolated)
      await page.getByText(/WASM: 2 threads/).waitFor()
      await openDemo(page)
      await profile.setOffline(true)
      site.close()
      await page.reload()
      await page.getByText(/WASM: 2 threads/).waitFor()
      await openDemo(page)
      await writeRecipe(page, recipe('method: gptq\n    bits: 3'))
      await start(page, 'result')
      await finished(page)
      await profile.close()
    },
  },
  {
    name: 'without shared memory and without WebGPU: one thread, and it says so',
    async run({ executable }) {
      const bare = await launch(executable, ['--disable-features=WebGPU,WebGPUService'])
      const site = await serveStatic(false)
      try {
        const { page } = await visit(bare, site.url, { serviceWorkers: 'block' })
        await page.getByText(/WASM: 1 thread/).waitFor()
        await openDemo(page)
        await writeRecipe(page, recipe('method: rtn\n    bits: 4'))
        await step(page, 'Run')
        await page.getByText(/can’t be shared between threads/).waitFor()
        await start(page, 'result')
        await finished(page)
      } finally {
        site.close()
        await bare.close()
      }
    },
  },
  {
    name: 'a full quota is named, and what was done is kept',
    async run({ browser, url }) {
      const { page, profile } = await visit(browser, url)
      await openDemo(page)
      await writeRecipe(page, recipe('method: rtn\n    bits: 8'))
      const devtools = await profile.newCDPSession(page)
      const { origin } = new URL(url)
      await devtools.send('Storage.overrideQuotaForOrigin', { origin, quotaSize: 2_500_000 })
      await start(page, 'result')
      assert.match(await errorShown(page), /^disk-full/)
      await devtools.send('Storage.overrideQuotaForOrigin', { origin, quotaSize: 500_000_000 })
      await page.getByRole('button', { name: 'Go on' }).click()
      await page.getByText(/parts were done before/).waitFor()
      await finished(page)
      sameWeights(
        await takeArchive(page),
        quantizeInNode('demo', ['--method', 'rtn', '--bits', '8']),
      )
      await profile.close()
    },
  },
  {
    name: 'hostile and broken files are refused by name',
    async run({ browser, url }) {
      const { page, profile } = await visit(browser, url)
      const demo = path.resolve(import.meta.dirname, '../../../../packages/demo-model/model')
      const good = (name: string): Buffer => readFileSync(path.join(demo, name))
      const whole = good('model.safetensors')
      const giant = Buffer.alloc(64)
      giant.writeBigUInt64LE(2n ** 60n)
      const cases: readonly [RegExp, Record<string, Buffer>][] = [
        [/config\.json/, { 'model.safetensors': whole }],
        [
          /config\.json/,
          { 'config.json': Buffer.from('{"hidden_size": '), 'model.safetensors': whole },
        ],
        [/model\.safetensors/, { 'config.json': good('config.json'), 'model.safetensors': giant }],
        [
          /model\.safetensors/,
          { 'config.json': good('config.json'), 'model.safetensors': whole.subarray(0, 100_000) },
        ],
        [
          /hidden_size/,
          {
            'config.json': Buffer.from('{"model_type":"llama","hidden_size":-1}'),
            'model.safetensors': whole,
          },
        ],
      ]
      for (const [expected, files] of cases) {
        const place = mkdtempSync(path.join(tmpdir(), 'lowbit-hostile-'))
        mkdirSync(place, { recursive: true })
        const paths = Object.entries(files).map(([name, bytes]) => {
          const file = path.join(place, name)
          writeFileSync(file, bytes)
          return file
        })
        await page.getByLabel('Choose files').setInputFiles(paths)
        assert.match(await errorShown(page), expected)
        await page.getByRole('button', { name: 'Close' }).click()
      }
      await openDemo(page)
      await profile.close()
    },
  },
  {
    name: 'a sharded model from picked files, and one served by address with ranges',
    async run({ browser }) {
      const place = quantizeInNode('demo', [
        '--method',
        'rtn',
        '--bits',
        '4',
        '--max-shard-size',
        '1MB',
      ])
      const site = await serveStudio([place])
      const { page, profile } = await visit(browser, site.url)
      const { readdirSync } = await import('node:fs')
      const files = readdirSync(place).map((name) => path.join(place, name))
      assert.ok(files.filter((name) => name.endsWith('.safetensors')).length > 1)
      await page.getByLabel('Choose files').setInputFiles(files)
      await page.getByRole('button', { name: 'Choose a recipe' }).waitFor()
      assert.match(
        (await page.getByLabel('The opened model').textContent()) ?? '',
        /stored as\s*lowbit/,
      )
      let most = 0
      page.on('response', async (response) => {
        const { 'content-length': length = '0' } = response.headers()
        if (response.url().includes('/models/')) most = Math.max(most, Number(length))
      })
      await page.getByRole('button', { name: 'model', exact: true }).click()
      await page.waitForTimeout(1000)
      assert.ok(most > 0 && most < 200_000, `opening read ${most} bytes at once`)
      site.close()
      await profile.close()
    },
  },
  {
    name: 'the first load is at most 1 MB over the wire, compressed, without the model',
    async run({ browser, url }) {
      const profile = await browser.newContext()
      const page = await profile.newPage()
      const bodies: Promise<Buffer>[] = []
      profile.on('response', (response) => {
        bodies.push(response.body().catch(() => Buffer.alloc(0)))
      })
      await page.goto(url)
      await page.getByText(/WASM: \d/).waitFor()
      await page.waitForTimeout(1000)
      const sizes = (await Promise.all(bodies)).map((body) => gzipSync(body).length)
      const total = sizes.reduce((sum, size) => sum + size, 0)
      assert.ok(total > 50_000 && total <= 1_000_000, `${total} bytes`)
      await profile.close()
      return `${(total / 1000).toFixed(0)} kB in ${sizes.length} files`
    },
  },
  ...LARGER.map((method) => ({
    name: `a larger model by ${method.name} on WASM: the bytes of Node`,
    run: (context: StudioContext) => quantizeLarger(context, method),
  })),
]
