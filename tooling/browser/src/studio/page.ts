/** The page itself: forms, keyboard, schemes and sizes, hosts that lack something. */

import { strict as assert } from 'node:assert'
import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { AxeBuilder } from '@axe-core/playwright'
import { launch } from '../chromium.ts'
import { recipe, type StudioCheck, visit } from './harness.ts'
import { serveStatic } from './site.ts'
import { finished, measure, openDemo, start, step, writeRecipe } from './user.ts'

export const PAGE_CHECKS: readonly StudioCheck[] = [
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
]
