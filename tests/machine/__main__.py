from tests.machine.main import main

main()
