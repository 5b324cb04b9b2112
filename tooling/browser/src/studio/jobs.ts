/** Jobs that are stopped, by people and by what breaks. */

import { strict as assert } from 'node:assert'
import { launch } from '../chromium.ts'
import { inNode, recipe, type StudioCheck, sameWeights, visit } from './harness.ts'
import { quantizeInNode, serveStudio } from './site.ts'
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

export const JOB_CHECKS: readonly StudioCheck[] = [
  {
    name: 'a name that is used again stands for the new result',
    async run({ browser, url }) {
      const { page, profile } = await visit(browser, url)
      await openDemo(page)
      const found: number[] = []
      for (const bits of [2, 8]) {
        await writeRecipe(page, recipe(`method: rtn\n    bits: ${bits}`))
        await start(page, 'result')
        await finished(page)
        found.push(await measure(page, 1))
        await step(page, 'Open')
        await page.getByRole('button', { name: 'Delete result' }).click()
        await page.getByRole('button', { name: 'Delete it' }).click()
        await page.getByRole('button', { name: 'Delete result' }).waitFor({ state: 'detached' })
      }
      assert.ok(found[0] > found[1] * 1.1, `2 bits: ${found[0]}, 8 bits: ${found[1]}`)
      await profile.close()
    },
  },
  {
    name: 'what is stopped is what runs, though other calls came in between',
    async run({ browser, url }) {
      const { page, profile } = await visit(browser, url)
      await openDemo(page)
      await writeRecipe(page, recipe('method: rtn\n    bits: 4'))
      await start(page, 'result')
      await finished(page)
      await page.getByLabel('Windows').fill('500')
      await page.getByRole('button', { name: 'Measure' }).click()
      await page.getByText(/window [1-9]/).waitFor()
      await writeRecipe(page, recipe('method: rtn\n    bits: 5'))
      await page.getByRole('button', { name: 'down of layer 0: 5', exact: true }).waitFor()
      await step(page, 'See')
      await page.getByRole('button', { name: 'Stop' }).click()
      await page.getByText(/window [1-9]/).waitFor({ state: 'detached', timeout: 10_000 })
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
]
