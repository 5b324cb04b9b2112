/** Tensor cores of a real GPU, as the emulated one has them: `npm run test:cuda`. */

import { describeTiles } from './tiles.ts'

describeTiles()
