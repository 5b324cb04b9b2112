/** Graphs on a real GPU, as the emulated one has them: `npm run test:cuda`. */

import { describeGraphs } from './graphs.ts'

describeGraphs()
